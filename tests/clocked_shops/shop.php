<?php
/** Two processes serve requests, and a third one sweeps: it compares clocks every minute, and looks whether the time is over. */

function call(string $path, ?array $body = null): array
{
    $curl = curl_init(getenv("PSP_URL") . $path);
    $headers = ["X-API-KEY: " . getenv("PSP_API_KEY"), "Content-Type: application/json"];
    if ($body !== null) {
        $headers[] = "X-IDEMPOTENCY-KEY: " . $body["merchant_reference"];
        curl_setopt($curl, CURLOPT_POSTFIELDS, json_encode($body));
    }
    curl_setopt_array($curl, [
        CURLOPT_HTTPHEADER => $headers, CURLOPT_RETURNTRANSFER => true, CURLOPT_TIMEOUT => 10, CURLOPT_FAILONERROR => true,
    ]);
    $answer = curl_exec($curl);
    if ($answer === false) {
        throw new RuntimeException(curl_error($curl));
    }
    return json_decode($answer, true);
}

function sweep(): never
{
    $length = (int) getenv("SWEEP_SECONDS");
    $due = time() + $length;
    [$compared, $apart] = [0, 0];
    while (true) {
        sleep(60);
        $now = microtime(true);
        $clock = new DateTimeImmutable(call("/sandbox/v1/clock")["now"]);
        $compared++;
        $apart = max($apart, abs($now - (float) $clock->format("U.u")));
        if ($now >= $due) {
            $bank = ["dest_type" => "BANK", "bank_code" => "HBL", "account_number" => "12345678900001"];
            $reference = sprintf("swept-%.3f-%d-%.3f", $now, $compared, $apart);
            call("/api/v1/payouts", ["merchant_reference" => $reference, "amount" => "5.00"] + $bank);
            $due += $length;
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
