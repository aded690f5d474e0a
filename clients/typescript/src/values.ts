/** An amount of money in a result: text with exactly two decimals, such as "1500.00". */
export type Money = string;

/** An amount of money in a request: text with at most two decimals. A number is not one, because it cannot hold most of them. */
export type Amount = string;

/** A time in a request: a Date, or text in RFC 3339 with its zone, such as "2030-01-01T00:00:00Z". */
export type Time = Date | string;

/** A file to upload. */
export type FileContent = Blob | Uint8Array<ArrayBuffer> | string;

/** A JSON object that the document does not describe further. */
export type JsonObject = Record<string, unknown>;
