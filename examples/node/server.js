import { createServer } from "node:http";
import { createShop } from "./shop.js";

const port = Number(process.env.PORT ?? 3000);
createServer(createShop(process.env)).listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${port}`));
