<?php

/** The PSP refused a payout for good. */
final class Refused extends RuntimeException
{
}

/** The PSP gave no answer that says what became of a payout. It may exist or not. */
final class NoAnswer extends RuntimeException
{
}

/** Pays orders by payouts, and learns from webhooks what became of them. */
final class Shop
{
    private const ATTEMPTS = 3;
    private const TIMEOUT = 10;
    private const TOLERANCE = 300;

    private array $orders = [];

    public function __construct(private string $pspUrl, private string $apiKey, private string $webhookSecret)
    {
    }

    /** Pays an order. It is safe to repeat: the order's id is the idempotency key. Throws Refused, or NoAnswer. */
    public function pay(string $id, string $amount): void
    {
        for ($attempt = 1; ; $attempt++) {
            try {
                $this->send($id, $amount);
                return;
            } catch (NoAnswer $error) {
                if ($attempt === self::ATTEMPTS) {
                    throw $error; // the payout may exist, so nobody may assume that it failed
                }
            }
        }
    }

    /** Returns the last known status of an order's payout, or null. */
    public function status(string $id): ?string
    {
        return $this->orders[$id]["status"] ?? null;
    }

    /** Receives a webhook, and returns the status of the answer. */
    public function receive(array $headers, string $body): int
    {
        if (!$this->isAuthentic($headers, $body)) {
            return 401;
        }
        $data = json_decode($body, true)["data"];
        // Webhooks can arrive twice and in any order: only a newer version counts.
        if ($data["version"] > ($this->orders[$data["merchant_reference"]]["version"] ?? 0)) {
            $this->orders[$data["merchant_reference"]] = $data;
        }
        return 204;
    }

    private function send(string $id, string $amount): void
    {
        $bank = ["dest_type" => "BANK", "bank_code" => "HBL", "account_number" => "12345678900012"];
        $answer = @file_get_contents("$this->pspUrl/api/v1/payouts", false, stream_context_create(["http" => [
            "method" => "POST",
            "header" => ["X-API-KEY: $this->apiKey", "X-IDEMPOTENCY-KEY: $id", "Content-Type: application/json"],
            "content" => json_encode(["merchant_reference" => $id, "amount" => $amount] + $bank),
            "timeout" => self::TIMEOUT,
            "ignore_errors" => true,
        ]]));
        $status = (int) (explode(" ", $http_response_header[0] ?? "")[1] ?? 0);
        if ($answer === false || $status === 0 || $status === 429 || $status >= 500) {
            throw new NoAnswer("the PSP answered $status");
        }
        if ($status >= 300) {
            throw new Refused($answer);
        }
    }

    private function isAuthentic(array $headers, string $body): bool
    {
        [$id, $stamp] = [$headers["webhook-id"] ?? "", $headers["webhook-timestamp"] ?? ""];
        if ($id === "" || !preg_match('/^[0-9]{1,12}\z/', $stamp) || abs(time() - (int) $stamp) > self::TOLERANCE) {
            return false;
        }
        $key = base64_decode(substr($this->webhookSecret, strlen("whsec_")));
        $expected = "v1," . base64_encode(hash_hmac("sha256", "$id.$stamp.$body", $key, true));
        foreach (explode(" ", $headers["webhook-signature"] ?? "") as $given) {
            if (hash_equals($expected, $given)) {
                return true;
            }
        }
        return false;
    }
}
