require "json"
require "net/http"
require "openssl"

# Pays orders by payouts, and learns from webhooks what became of them.
class Shop
  ATTEMPTS = 3
  TIMEOUT = 10
  TOLERANCE = 300
  Refused = Class.new(StandardError)
  NoAnswer = Class.new(StandardError)

  def initialize(psp_url, api_key, webhook_secret)
    @uri = URI("#{psp_url}/api/v1/payouts")
    @api_key = api_key
    @webhook_secret = webhook_secret
    @orders = {}
    @lock = Mutex.new
  end

  # Pays an order. It is safe to repeat: the order's id is the idempotency key. Raises Refused, or NoAnswer.
  def pay(id, amount)
    reason = nil
    ATTEMPTS.times do
      return send_payout(id, amount)
    rescue NoAnswer, SystemCallError, IOError, Timeout::Error => e
      reason = e # the payout may exist, so only the same key is safe
    end
    raise NoAnswer, reason.message
  end

  # Returns the last known status of an order's payout, or nil.
  def status(id)
    @lock.synchronize { @orders.dig(id, "status") }
  end

  # Receives a webhook, and returns the status of the answer.
  def receive(headers, body)
    return 401 unless authentic?(headers, body)

    data = JSON.parse(body)["data"]
    @lock.synchronize do
      # Webhooks can arrive twice and in any order: only a newer version counts.
      known = @orders.dig(data["merchant_reference"], "version") || 0
      @orders[data["merchant_reference"]] = data if data["version"] > known
    end
    204
  end

  private

  def send_payout(id, amount)
    headers = { "X-API-KEY" => @api_key, "X-IDEMPOTENCY-KEY" => id, "Content-Type" => "application/json" }
    payout = { merchant_reference: id, amount: amount, dest_type: "BANK", bank_code: "HBL", account_number: "12345678900012" }
    options = { use_ssl: @uri.scheme == "https", read_timeout: TIMEOUT, max_retries: 0 }
    answer = Net::HTTP.start(@uri.host, @uri.port, options) { |http| http.post(@uri.path, JSON.generate(payout), headers) }
    return if answer.is_a?(Net::HTTPSuccess)
    raise NoAnswer, answer.code if answer.code.to_i >= 500 || answer.code == "429"

    raise Refused, answer.body
  end

  def authentic?(headers, body)
    stamp = headers["webhook-timestamp"].to_s
    return false if !stamp.match?(/\A\d{1,12}\z/) || (Time.now.to_i - stamp.to_i).abs > TOLERANCE

    key = @webhook_secret.delete_prefix("whsec_").unpack1("m")
    expected = "v1," + [OpenSSL::HMAC.digest("SHA256", key, "#{headers["webhook-id"]}.#{stamp}.".b + body.b)].pack("m0")
    headers["webhook-signature"].to_s.split.any? { |given| OpenSSL.secure_compare(given, expected) }
  end
end
