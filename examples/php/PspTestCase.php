<?php
// PspTestCase.php: gives each test of PHPUnit a merchant of its own in PSP Sandbox. Copy it next to your tests. It needs no package.

use PHPUnit\Framework\Assert;
use PHPUnit\Framework\TestCase;

/** A test with `$this->psp`, whose books and webhooks are checked when the test has passed. */
abstract class PspTestCase extends TestCase
{
    protected Psp $psp;

    protected function setUp(): void
    {
        $this->psp = new Psp(static::class . "::" . (method_exists($this, "name") ? $this->name() : $this->getName()));
    }

    protected function assertPostConditions(): void
    {
        $this->psp->check();
    }

    protected function tearDown(): void
    {
        if (isset($this->psp)) {
            $this->psp->delete();
        }
    }
}

/** A merchant for one test. Its clock is frozen. Webhooks arrive during its calls, because PHP does one thing at a time. */
final class Psp
{
    /** Runs psp until this process ends, even if it is killed: that closes its end of the pipe. $0 is a folder for keys and the log. */
    private const WATCH = <<<'SH'
        unset DATABASE_URL REDIS_URL; exec 3<&0 > "$0/log" 2>&1
        psp up --ephemeral --no-seed --port 0 --ipn-port 0 --ready-file "$0/ready" < /dev/null & psp=$!
        { cat <&3; kill $psp; } & wait $psp; mv "$0/log" "$0/ended"; cat <&3; rm -rf "$0"
        SH;
    private const NONE = "The sandbox did not start: put psp on the PATH (pipx install 'psp-sandbox[server]'), or set PSP_URL and PSP_ADMIN_KEY.\n";
    private const SECONDS = 60;

    /** What an application needs. */
    public string $url, $apiKey = "", $webhookSecret;
    /** @var ?callable The application: it gets the headers (names in lower case) and the raw body of each webhook, and returns a status. */
    public $app = null;
    private string $adminKey, $merchantId;
    private array $events = [], $invalid = [];
    private $server;
    private static array $sandbox = [];
    private static $process, $pipes;

    /** Creates the merchant, with a balance of 1000000.00. */
    public function __construct(string $name)
    {
        self::$sandbox = self::$sandbox ?: (getenv("PSP_URL") ? [getenv("PSP_URL"), (string) getenv("PSP_ADMIN_KEY")] : self::start());
        [$this->url, $this->adminKey] = self::$sandbox;
        $this->server = stream_socket_server("tcp://127.0.0.1:0");
        $made = $this->call("POST", "/sandbox/v1/merchants", [
            "name" => substr($name, -100), "opening_balance" => "1000000.00", "frozen_at" => gmdate("Y-m-d\TH:i:s\Z"),
            "webhook_url" => "http://" . stream_socket_get_name($this->server, false) . "/webhooks",
        ]);
        [$this->merchantId, $this->apiKey, $this->webhookSecret] = [$made["merchant_id"], $made["api_key"], $made["webhook_secret"]];
    }

    /** Creates a payout that follows a scenario, such as "returned" or "account_closed", and returns it. */
    public function pays(string $scenario, string $amount): array
    {
        $key = uniqid("$scenario-");
        $bank = ["dest_type" => "BANK", "bank_code" => "HBL", "account_number" => "12345678900001"];
        $headers = ["X-IDEMPOTENCY-KEY: $key", "X-SANDBOX-SCENARIO: $scenario"];
        return $this->call("POST", "/api/v1/payouts", ["merchant_reference" => $key, "amount" => $amount] + $bank, $headers);
    }

    /** Returns the merchant's available balance, such as "1000000.00". */
    public function available(): string
    {
        return $this->call("GET", "/api/v1/balance")["available_balance"];
    }

    /** Moves the merchant's clock on, and returns when everything that fell due is done and its webhooks have arrived. */
    public function advance(int $seconds): void
    {
        $run = $this->call("POST", "/sandbox/v1/clock/advance", ["seconds" => $seconds]);
        Assert::assertTrue($run["complete"], "the clock stopped at {$run["now"]}: {$run["stopped_because"]}");
    }

    /** Returns the only webhook of this type about a payout, and fails with what arrived instead. */
    public function expect(string $type, array $payout): array
    {
        $this->drain();
        $arrived = array_filter($this->events, fn ($event) => $event["data"]["id"] === $payout["id"]);
        $found = array_values(array_filter($arrived, fn ($event) => $event["type"] === $type));
        Assert::assertCount(1, $found, "expected $type once, but it arrived " . count($found) . " times.\nArrived: "
            . implode(", ", array_column($arrived, "type")) . ". Not counted: " . implode(", ", $this->invalid)
            . ".\nThe clock is frozen: what is due later needs advance.");
        return $found[0];
    }

    /** Returns when everything that is due now is done, and its webhooks have arrived. */
    public function drain(): void
    {
        $this->call("POST", "/sandbox/v1/drain");
    }

    /** Sends a request, receives webhooks until its answer is here, and returns the answer. Fails unless it succeeds. */
    public function call(string $method, string $path, ?array $body = null, array $headers = []): array
    {
        ["scheme" => $scheme, "host" => $host] = $parts = parse_url($this->url);
        $port = $parts["port"] ?? ($scheme === "https" ? 443 : 80);
        $client = @stream_socket_client(($scheme === "https" ? "ssl" : "tcp") . "://$host:$port", $code, $error, self::SECONDS);
        Assert::assertNotFalse($client, "the sandbox at $this->url does not answer: $error");
        $content = $body === null ? "" : json_encode($body);
        $headers = [...$headers, "Host: $host:$port", "Content-Type: application/json", "Content-Length: " . strlen($content)];
        $headers = [...$headers, ...($this->apiKey ? ["X-API-KEY: $this->apiKey"] : []), "X-ADMIN-KEY: $this->adminKey"];
        fwrite($client, "$method $path HTTP/1.0\r\n" . implode("\r\n", $headers) . "\r\n\r\n$content");
        for ($answer = ""; !feof($client);) {
            [$ready, $none] = [[$client, $this->server], null];
            Assert::assertNotEmpty(stream_select($ready, $none, $none, self::SECONDS), "$method $path: no answer in time");
            if (in_array($this->server, $ready, true)) {
                $this->receive(stream_socket_accept($this->server));
            }
            $answer .= in_array($client, $ready, true) ? fread($client, 65536) : "";
        }
        [$head, $text] = explode("\r\n\r\n", $answer, 2) + ["", ""];
        Assert::assertMatchesRegularExpression("~^HTTP/1.. 2~", $head, "$method $path: $text");
        return json_decode($text, true) ?? []; // a deletion has no body
    }

    /** Fails if the merchant's books or its webhooks are not in order. */
    public function check(): void
    {
        foreach ($this->call("GET", "/api/v1/webhook-deliveries?limit=100")["data"] as $one) {
            $isGood = $one["status"] === "SUCCEEDED" || $one["attempt_count"] === 0;
            Assert::assertTrue($isGood, "a webhook was not accepted: {$one["event_type"]} " . implode(", ", $this->invalid));
        }
        $audit = $this->call("GET", "/sandbox/v1/audit");
        Assert::assertTrue($audit["ok"], "the audit of the ledger found errors: " . json_encode($audit["checks"]));
    }

    /** Deletes the merchant. */
    public function delete(): void
    {
        $this->call("DELETE", "/sandbox/v1/merchants/$this->merchantId");
        fclose($this->server);
    }

    private function receive($socket): void
    {
        stream_set_timeout($socket, 5);
        $headers = [];
        for (fgets($socket); ($line = trim((string) fgets($socket))) !== "";) {
            [$name, $value] = explode(":", $line, 2);
            $headers[strtolower($name)] = trim($value);
        }
        $body = (string) stream_get_contents($socket, (int) ($headers["content-length"] ?? 0));
        if ($isValid = $this->isValid($headers, $body)) {
            $event = json_decode($body, true);
            $this->events[$event["id"]] = $event; // it arrives again after a lost answer
        } else {
            $this->invalid[] = "an invalid signature: " . ($headers["webhook-id"] ?? "");
        }
        $status = $this->app ? ($this->app)($headers, $body) : ($isValid ? 204 : 401);
        fwrite($socket, "HTTP/1.1 $status -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        fclose($socket);
    }

    /** Verifies a webhook: https://www.standardwebhooks.com. */
    private function isValid(array $headers, string $body): bool
    {
        [$id, $stamp] = [$headers["webhook-id"] ?? "", $headers["webhook-timestamp"] ?? ""];
        $key = base64_decode(substr($this->webhookSecret, strlen("whsec_")));
        $expected = "v1," . base64_encode(hash_hmac("sha256", "$id.$stamp.$body", $key, true));
        return abs(time() - (int) $stamp) <= 300 && in_array($expected, explode(" ", $headers["webhook-signature"] ?? ""), true);
    }

    /** Starts a sandbox that ends with this process, and returns its URL and the operator's key. */
    private static function start(): array
    {
        $folder = sys_get_temp_dir() . "/psp-" . bin2hex(random_bytes(8));
        mkdir($folder, 0700);
        self::$process = proc_open(["sh", "-c", self::WATCH, $folder], [["pipe", "r"]], self::$pipes);
        for ($polls = 0; !is_file("$folder/ready"); $polls++) {
            Assert::assertFileDoesNotExist("$folder/ended", self::NONE . @file_get_contents("$folder/ended"));
            Assert::assertLessThan(2_400, $polls, self::NONE . "It was not ready within two minutes.");
            usleep(50_000);
        }
        $ready = json_decode(file_get_contents("$folder/ready"), true);
        return [$ready["api_url"], $ready["admin_key"]];
    }
}
