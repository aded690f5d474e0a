<?php
/** Two processes serve requests, and a third one sweeps: it looks every minute whether 25 hours are over. */
const SWEEP = 25 * 3600;

function post(string $path, array $body): void
{
    $curl = curl_init(getenv("PSP_URL") . $path);
    $key = "X-IDEMPOTENCY-KEY: " . $body["merchant_reference"];
    curl_setopt_array($curl, [
        CURLOPT_HTTPHEADER => ["X-API-KEY: " . getenv("PSP_API_KEY"), $key, "Content-Type: application/json"],
        CURLOPT_POSTFIELDS => json_encode($body), CURLOPT_RETURNTRANSFER => true, CURLOPT_TIMEOUT => 10, CURLOPT_FAILONERROR => true,
    ]);
    if (curl_exec($curl) === false) {
        throw new RuntimeException(curl_error($curl));
    }
}

function sweep(): never
{
    for ($due = time() + SWEEP;; sleep(60)) {
        if (time() >= $due) {
            $bank = ["dest_type" => "BANK", "bank_code" => "HBL", "account_number" => "12345678900001"];
            post("/api/v1/payouts", ["merchant_reference" => sprintf("swept-%.3f", microtime(true)), "amount" => "5.00"] + $bank);
            $due += SWEEP;
        }
    }
}

function work(): string
{
    static $database, $curl;
    $database ??= new PDO(getenv("DATABASE_DSN"), getenv("PGUSER"), getenv("PGPASSWORD") ?: "", [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
    $database->query("SELECT pg_sleep(0.02)");
    $curl ??= curl_init(getenv("UPSTREAM"));
    curl_setopt_array($curl, [CURLOPT_RETURNTRANSFER => true, CURLOPT_TIMEOUT => 10, CURLOPT_CAINFO => getenv("UPSTREAM_CA")]);
    $answer = curl_exec($curl);
    if ($answer === false) {
        throw new RuntimeException(curl_error($curl));
    }
    $context = stream_context_create(["http" => ["timeout" => 10], "ssl" => ["cafile" => getenv("UPSTREAM_CA")]]);
    return $answer . file_get_contents(getenv("UPSTREAM"), false, $context);
}

function answer(string $path): array
{
    try {
        return [200, match ($path) {
            "/clocks" => sprintf("%.6f %.6f", microtime(true), hrtime(true) / 1e9),
            "/work" => work(),
            default => "",
        }];
    } catch (Throwable $error) {
        return [500, $error->getMessage()];
    }
}

function serve($server): never
{
    while (true) {
        $client = @stream_socket_accept($server, 3600);
        if ($client === false) {
            continue;
        }
        stream_set_timeout($client, 10);
        $path = explode(" ", (string) fgets($client))[1] ?? "";
        $length = 0;
        while (($line = trim((string) fgets($client))) !== "") {
            $length = preg_match("/^content-length: *(\d+)/i", $line, $found) ? (int) $found[1] : $length;
        }
        $length && stream_get_contents($client, $length);
        [$status, $text] = answer($path);
        fwrite($client, "HTTP/1.1 $status -\r\nContent-Length: " . strlen($text) . "\r\nConnection: close\r\n\r\n$text");
        fclose($client);
    }
}

$server = stream_socket_server("tcp://127.0.0.1:" . getenv("PORT"));
if (pcntl_fork() === 0) {
    sweep();
}
pcntl_fork();
serve($server);
