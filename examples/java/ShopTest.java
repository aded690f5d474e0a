import static org.junit.jupiter.api.Assertions.assertEquals;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

class ShopTest {
    @RegisterExtension final Psp psp = new Psp();

    @Test void aReturnedPayoutGivesTheMoneyBack() {
        Map<String, Object> payout = psp.pays("returned", "250.00");
        psp.expect("payout.succeeded", payout);
        assertEquals("999750.00", psp.available());
        psp.advance(Duration.ofMinutes(1));
        psp.expect("payout.returned", payout);
        assertEquals("1000000.00", psp.available());
    }

    @Test void theShopLearnsThatAPayoutWasReturned() throws Exception {
        Shop shop = openShop();
        shop.pay("17", "250.00");
        psp.advance(Duration.ofSeconds(59));
        assertEquals("SUCCESS", shop.status("17"));
        psp.advance(Duration.ofSeconds(1));
        assertEquals("RETURNED", shop.status("17"));
    }

    @Test void aLostAnswerDoesNotPayTwice() throws Exception {
        psp.call("POST", "/sandbox/v1/faults", """
            {"kind": "connection_reset", "target": "api", "count": 1, "match": {"method": "POST", "path": "/api/v1/payouts"}}""");
        openShop().pay("17", "250.00");
        assertEquals(1, ((List<?>) psp.call("GET", "/api/v1/payouts", "").get("data")).size());
    }

    @Test void aForgedWebhookIsRefused() {
        assertEquals(401, openShop().receive(Map.of(), "{\"type\": \"payout.succeeded\"}".getBytes()));
    }

    private Shop openShop() {
        Shop shop = new Shop(psp.url, psp.apiKey, psp.webhookSecret);
        psp.app = shop::receive;
        return shop;
    }
}
