import { createServer } from "node:http";
import { sendUnsent } from "./payments.js";
import { createShop } from "./shop.js";
import { Store, fileOf } from "./store.js";

const port = Number(process.env.PORT ?? 3000);
const store = new Store(fileOf(process.env));
await sendUnsent(store, process.env); // what a crash has interrupted
createServer(createShop(process.env, store)).listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${port}`));
