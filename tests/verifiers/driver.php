<?php

// Read cases from standard input, one a line, and print `accepted` or `refused` for each. See test_docs_verifiers.py.
error_reporting(E_ALL);
set_error_handler(fn($level, $message) => throw new ErrorException($message));
require __DIR__ . "/verify.php";

foreach (file("php://stdin", FILE_IGNORE_NEW_LINES) as $line) {
    [$secrets, $now, $body, $pairs] = [...array_slice($fields = array_map("base64_decode", explode("\t", $line)), 0, 3), array_slice($fields, 3)];
    $headers = [];
    foreach (array_chunk($pairs, 2) as [$name, $value]) {
        $headers[$name] = $value;
    }
    echo is_valid_webhook(explode(" ", $secrets), $headers, $body, (int) $now) ? "accepted\n" : "refused\n";
}
