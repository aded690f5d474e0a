# psp.rb: gives each test of minitest or RSpec a merchant of its own in PSP Sandbox. Copy it next to your tests. It needs no gem.
require "json"
require "net/http"
require "openssl"
require "securerandom"
require "socket"
require "tmpdir"

# A merchant for one test. Its clock is frozen.
class Psp
  # Runs psp until this process ends, even if it is killed: that closes its end of the pipe. $0 is a folder for keys and the log.
  WATCH = <<~'SH'.freeze
    unset DATABASE_URL REDIS_URL; exec 3<&0 > "$0/log" 2>&1
    psp up --ephemeral --no-seed --port 0 --ipn-port 0 --ready-file "$0/ready" < /dev/null & psp=$!
    { cat <&3; kill $psp; } & wait $psp; mv "$0/log" "$0/ended"; cat <&3; rm -rf "$0"
  SH
  NONE = "The sandbox did not start: put psp on the PATH (pipx install 'psp-sandbox[server]'), or set PSP_URL and PSP_ADMIN_KEY.\n".freeze
  MOST_BYTES = 1 << 20

  # What went wrong in a test. minitest reports its own class as a failure, and any other as an error.
  Failure = defined?(Minitest::Assertion) ? Class.new(Minitest::Assertion) : Class.new(StandardError)

  # Returns the URL and the operator's key of the sandbox: that of PSP_URL, or one that starts now and ends with this process.
  def self.sandbox
    @sandbox ||= ENV["PSP_URL"] ? ENV.values_at("PSP_URL", "PSP_ADMIN_KEY") : start
  end

  def self.start
    folder = Dir.mktmpdir("psp-")
    @pipe = IO.popen(["sh", "-c", WATCH, folder], "w")
    polls = 0
    until File.exist?("#{folder}/ready")
      raise Failure, NONE + File.read("#{folder}/ended") if File.exist?("#{folder}/ended")
      raise Failure, NONE + "It was not ready within two minutes." if (polls += 1) > 2_400

      sleep 0.05
    end
    JSON.parse(File.read("#{folder}/ready")).values_at("api_url", "admin_key")
  end
  private_class_method :start

  # What an application needs.
  attr_reader :url, :api_key, :webhook_secret
  # The application: it gets the headers (names in lower case) and the raw body of each webhook, and returns a status.
  attr_writer :app

  # Creates the merchant, with a balance of 1000000.00.
  def initialize(name)
    @url, @admin_key = Psp.sandbox
    @events = []
    @invalid = []
    @server = TCPServer.new("127.0.0.1", 0)
    made = call("POST", "/sandbox/v1/merchants", {
      name: name[0, 100], opening_balance: "1000000.00", frozen_at: Time.now.utc.strftime("%FT%TZ"),
      webhook_url: "http://127.0.0.1:#{@server.addr[1]}/webhooks"
    })
    @id, @api_key, @webhook_secret = made.values_at("merchant_id", "api_key", "webhook_secret")
    @receiver = Thread.new { loop { receive(@server.accept) } }
  end

  # Creates a payout that follows a scenario, such as "returned" or "account_closed", and returns it.
  def pays(scenario, amount)
    key = "#{scenario}-#{SecureRandom.hex(4)}"
    payout = { merchant_reference: key, amount: amount, dest_type: "BANK", bank_code: "HBL", account_number: "12345678900001" }
    call("POST", "/api/v1/payouts", payout, "X-IDEMPOTENCY-KEY" => key, "X-SANDBOX-SCENARIO" => scenario)
  end

  # Returns the merchant's available balance, such as "1000000.00".
  def available
    call("GET", "/api/v1/balance")["available_balance"]
  end

  # Moves the merchant's clock on, and returns when everything that fell due is done and its webhooks have arrived.
  def advance(seconds)
    run = call("POST", "/sandbox/v1/clock/advance", { seconds: seconds })
    raise Failure, "the clock stopped at #{run["now"]}: #{run["stopped_because"]}" unless run["complete"]
  end

  # Returns the only webhook of this type about a payout, and fails with what arrived instead.
  def expect_webhook(type, payout)
    call("POST", "/sandbox/v1/drain") # what is due now is done then
    of_payout = @events.select { |event| event["data"]["id"] == payout["id"] }.uniq { |event| event["id"] }
    found = of_payout.select { |event| event["type"] == type }
    return found.first if found.size == 1

    raise Failure, "expected #{type} once, but it arrived #{found.size} times.\n" \
                   "Arrived: #{of_payout.map { |event| event["type"] }}. Not counted: #{@invalid}.\n" \
                   "The clock is frozen: what is due later needs advance."
  end

  # Sends a request, and returns the answer. Fails unless it succeeds.
  def call(method, path, body = nil, headers = {})
    uri = URI(@url + path)
    request = Net::HTTPGenericRequest.new(method, !body.nil?, true, uri, headers)
    request["Content-Type"] = "application/json"
    request["X-API-KEY"] = @api_key if @api_key
    request["X-ADMIN-KEY"] = @admin_key if @admin_key
    request.body = JSON.generate(body) if body
    answer = Net::HTTP.start(uri.host, uri.port, use_ssl: uri.scheme == "https") { |http| http.request(request) }
    raise Failure, "#{method} #{path}: #{answer.code} #{answer.body}" unless answer.is_a?(Net::HTTPSuccess)

    answer.body.to_s.empty? ? {} : JSON.parse(answer.body)
  rescue SystemCallError, IOError => e
    raise Failure, "the sandbox does not answer: #{e.message}"
  end

  # Deletes the merchant. With `check`, fails if its books or its webhooks are not in order.
  def close(check: true)
    return unless check

    late = call("GET", "/api/v1/webhook-deliveries?limit=100")["data"].select do |one|
      one["status"] != "SUCCEEDED" && one["attempt_count"].positive?
    end
    raise Failure, "webhooks were not accepted: #{late.map { |one| one["event_type"] }} #{@invalid}" unless late.empty?

    audit = call("GET", "/sandbox/v1/audit")
    raise Failure, "the audit of the ledger found errors: #{audit["checks"]}" unless audit["ok"]
  ensure
    call("DELETE", "/sandbox/v1/merchants/#{@id}")
    @receiver.kill
    @server.close
  end

  # For minitest: `include Psp::Minitest` gives the tests of a class the method `psp`.
  module Minitest
    def psp
      @psp ||= Psp.new("#{self.class}##{name}")
    end

    def after_teardown
      super
    ensure
      begin
        @psp&.close(check: passed?)
      rescue Failure => e
        failures << e
      end
    end
  end

  # For RSpec: `RSpec.configure { |config| config.include Psp::RSpec }` gives each example `psp`.
  module RSpec
    def self.included(group)
      group.let(:psp) { |example| @psp = Psp.new(example.full_description) }
      group.after { |example| @psp&.close(check: example.exception.nil?) }
    end
  end

  private

  def receive(socket)
    socket.gets
    headers = {}
    while (line = socket.gets&.chomp) && !line.empty?
      header, value = line.split(": ", 2)
      headers[header.downcase] = value
    end
    body = socket.read([headers["content-length"].to_i, MOST_BYTES].min)
    is_valid = valid?(headers, body)
    is_valid ? @events << JSON.parse(body) : @invalid << "an invalid signature: #{headers["webhook-id"]}"
    status = @app ? @app.call(headers, body) : (is_valid ? 204 : 401)
    socket.write("HTTP/1.1 #{status} -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
  rescue StandardError => e
    @invalid << e.full_message(highlight: false)
    socket.write("HTTP/1.1 500 -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
  ensure
    socket.close
  end

  # Verifies a webhook: https://www.standardwebhooks.com.
  def valid?(headers, body)
    stamp = headers["webhook-timestamp"].to_s
    return false if (Time.now.to_i - stamp.to_i).abs > 300

    key = @webhook_secret.delete_prefix("whsec_").unpack1("m")
    expected = "v1," + [OpenSSL::HMAC.digest("SHA256", key, "#{headers["webhook-id"]}.#{stamp}.".b + body)].pack("m0")
    headers["webhook-signature"].to_s.split.any? { |given| OpenSSL.secure_compare(given, expected) }
  end
end
