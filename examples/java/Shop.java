import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Duration;
import java.time.Instant;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** Pays orders by payouts, and learns from webhooks what became of them. */
public final class Shop {
    private static final int ATTEMPTS = 3;
    private static final int TOLERANCE = 300;

    /** The PSP refused a payout for good. */
    public static final class Refused extends RuntimeException {
        Refused(String answer) { super(answer); }
    }

    private record Order(String status, long version) {}

    private final HttpClient client = HttpClient.newHttpClient();
    private final String pspUrl, apiKey, webhookSecret;
    private final Map<String, Order> orders = new HashMap<>();

    public Shop(String pspUrl, String apiKey, String webhookSecret) {
        this.pspUrl = pspUrl;
        this.apiKey = apiKey;
        this.webhookSecret = webhookSecret;
    }

    /** Pays an order. It is safe to repeat: the order's id is the idempotency key. Throws Refused, or an IOException without an answer. */
    public void pay(String id, String amount) throws IOException, InterruptedException {
        String body = """
            {"merchant_reference": "%s", "amount": "%s", "dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900012"}""";
        HttpRequest request = HttpRequest.newBuilder(URI.create(pspUrl + "/api/v1/payouts")).timeout(Duration.ofSeconds(10))
            .headers("X-API-KEY", apiKey, "X-IDEMPOTENCY-KEY", id, "Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body.formatted(id, amount))).build();
        for (int attempt = 1; ; attempt++) {
            try {
                var answer = client.send(request, BodyHandlers.ofString());
                if (answer.statusCode() < 300) return;
                if (answer.statusCode() < 500 && answer.statusCode() != 429) throw new Refused(answer.body());
                throw new IOException("the PSP answered " + answer.statusCode());
            } catch (IOException error) {
                if (attempt == ATTEMPTS) throw error; // the payout may exist, so nobody may assume that it failed
            }
        }
    }

    /** Returns the last known status of an order's payout, or null. */
    public synchronized String status(String id) {
        return orders.containsKey(id) ? orders.get(id).status() : null;
    }

    /** Receives a webhook, and returns the status of the answer. */
    public synchronized int receive(Map<String, String> headers, byte[] body) {
        if (!isAuthentic(headers, body)) return 401;
        String text = new String(body, StandardCharsets.UTF_8); // a real application has a JSON library
        String data = text.substring(text.indexOf("\"data\""));
        String id = field(data, "merchant_reference");
        long version = Long.parseLong(field(data, "version"));
        // Webhooks can arrive twice and in any order: only a newer version counts.
        if (!orders.containsKey(id) || version > orders.get(id).version()) orders.put(id, new Order(field(data, "status"), version));
        return 204;
    }

    private static String field(String json, String name) {
        Matcher found = Pattern.compile("\"" + name + "\":\\s*\"?([^\",}]*)").matcher(json);
        if (!found.find()) throw new IllegalArgumentException("no " + name);
        return found.group(1);
    }

    private boolean isAuthentic(Map<String, String> headers, byte[] body) {
        String stamp = headers.getOrDefault("webhook-timestamp", "");
        if (!stamp.matches("[0-9]{1,12}") || Math.abs(Instant.now().getEpochSecond() - Long.parseLong(stamp)) > TOLERANCE) return false;
        try {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(Base64.getDecoder().decode(webhookSecret.replaceFirst("^whsec_", "")), "HmacSHA256"));
            mac.update((headers.get("webhook-id") + "." + stamp + ".").getBytes(StandardCharsets.UTF_8));
            byte[] expected = ("v1," + Base64.getEncoder().encodeToString(mac.doFinal(body))).getBytes(StandardCharsets.UTF_8);
            for (String given : headers.getOrDefault("webhook-signature", "").split(" ")) {
                if (MessageDigest.isEqual(expected, given.getBytes(StandardCharsets.UTF_8))) return true;
            }
            return false;
        } catch (GeneralSecurityException error) {
            throw new IllegalStateException(error);
        }
    }
}
