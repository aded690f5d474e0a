require "minitest/autorun"
require_relative "psp"
require_relative "shop"

class ShopTest < Minitest::Test
  include Psp::Minitest

  def test_a_returned_payout_gives_the_money_back
    payout = psp.pays("returned", "250.00")
    psp.expect_webhook("payout.succeeded", payout)
    assert_equal "999750.00", psp.available
    psp.advance(60)
    psp.expect_webhook("payout.returned", payout)
    assert_equal "1000000.00", psp.available
  end

  def test_the_shop_learns_that_a_payout_was_returned
    shop.pay("17", "250.00")
    psp.advance(59)
    assert_equal "SUCCESS", shop.status("17")
    psp.advance(1)
    assert_equal "RETURNED", shop.status("17")
  end

  def test_a_lost_answer_does_not_pay_twice
    match = { method: "POST", path: "/api/v1/payouts" }
    psp.call("POST", "/sandbox/v1/faults", { kind: "connection_reset", target: "api", count: 1, match: match })
    shop.pay("17", "250.00")
    assert_equal 1, psp.call("GET", "/api/v1/payouts")["data"].size
  end

  def test_a_forged_webhook_is_refused
    assert_equal 401, shop.receive({}, '{"type": "payout.succeeded"}')
  end

  private

  def shop
    @shop ||= Shop.new(psp.url, psp.api_key, psp.webhook_secret).tap { |shop| psp.app = shop.method(:receive) }
  end
end
