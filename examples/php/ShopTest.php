<?php

require_once __DIR__ . "/PspTestCase.php";
require_once __DIR__ . "/Shop.php";

final class ShopTest extends PspTestCase
{
    public function test_a_returned_payout_gives_the_money_back(): void
    {
        $payout = $this->psp->pays("returned", "250.00");
        $this->psp->expect("payout.succeeded", $payout);
        $this->assertSame("999750.00", $this->psp->available());
        $this->psp->advance(60);
        $this->psp->expect("payout.returned", $payout);
        $this->assertSame("1000000.00", $this->psp->available());
    }

    public function test_the_shop_learns_that_a_payout_was_returned(): void
    {
        $shop = $this->shop();
        $shop->pay("17", "250.00");
        $this->psp->advance(59);
        $this->assertSame("SUCCESS", $shop->status("17"));
        $this->psp->advance(1);
        $this->assertSame("RETURNED", $shop->status("17"));
    }

    public function test_a_lost_answer_does_not_pay_twice(): void
    {
        $fault = ["kind" => "connection_reset", "target" => "api", "count" => 1];
        $this->psp->call("POST", "/sandbox/v1/faults", $fault + ["match" => ["method" => "POST", "path" => "/api/v1/payouts"]]);
        $this->shop()->pay("17", "250.00");
        $this->assertCount(1, $this->psp->call("GET", "/api/v1/payouts")["data"]);
        $this->psp->drain();
    }

    public function test_a_forged_webhook_is_refused(): void
    {
        $this->assertSame(401, $this->shop()->receive([], '{"type": "payout.succeeded"}'));
    }

    private function shop(): Shop
    {
        $shop = new Shop($this->psp->url, $this->psp->apiKey, $this->psp->webhookSecret);
        $this->psp->app = $shop->receive(...);
        return $shop;
    }
}
