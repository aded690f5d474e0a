export default { testMatch: ["<rootDir>/test/jest/**/*.test.js"], transform: {} };
