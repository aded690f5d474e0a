import { defineConfig } from "vitest/config";

export default defineConfig({
  // The tests use the package as projects do: by its name, as it was built.
  test: { include: ["test/**/*.test.ts"], exclude: ["test/projects/**"] },
});
