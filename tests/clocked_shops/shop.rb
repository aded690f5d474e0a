# A thread for each connection, and one that sweeps: it compares clocks every minute, and looks whether the time is over.
require "json"
require "net/http"
require "openssl"
require "socket"
require "time"

SWEEP = ENV["SWEEP_SECONDS"].to_i
HEADERS = {"X-API-KEY" => ENV["PSP_API_KEY"], "Content-Type" => "application/json"}.freeze

def sweep
  due = Time.now.to_f + SWEEP
  compared = apart = 0
  loop do
    sleep 60
    now = Time.now.to_f
    clock = JSON.parse(Net::HTTP.get(URI("#{ENV["PSP_URL"]}/sandbox/v1/clock"), HEADERS))
    compared += 1
    apart = [apart, (now - Time.iso8601(clock["now"]).to_f).abs].max
    next if now < due
    reference = format("swept-%.3f-%d-%.3f", now, compared, apart)
    headers = HEADERS.merge("X-IDEMPOTENCY-KEY" => reference)
    bank = {dest_type: "BANK", bank_code: "HBL", account_number: "12345678900001"}
    Net::HTTP.post(URI("#{ENV["PSP_URL"]}/api/v1/payouts"), bank.merge(merchant_reference: reference, amount: "5.00").to_json, headers).value
    due += SWEEP
  end
end

CONNECTIONS = Queue.new
DATABASES = Queue.new

def work
  database = DATABASES.empty? ? connect_database : DATABASES.pop
  database.exec("SELECT pg_sleep(0.02)")
  DATABASES << database
  connection = CONNECTIONS.empty? ? connect : CONNECTIONS.pop
  answer = connection.get("/").body
  CONNECTIONS << connection
  answer
end

def connect_database
  require "pg"
  PG.connect
end

def connect
  upstream = URI(ENV["UPSTREAM"])
  Net::HTTP.start(upstream.host, upstream.port, use_ssl: true, ca_file: ENV["UPSTREAM_CA"], open_timeout: 10, read_timeout: 10, max_retries: 0)
end

def answer(path)
  case path
  when "/clocks" then [200, format("%.6f %.6f", Time.now.to_f, Process.clock_gettime(Process::CLOCK_MONOTONIC))]
  when "/work" then [200, work]
  else [200, ""]
  end
rescue StandardError => error
  [500, "#{error.class}: #{error.message}"]
end

def serve(client)
  path = client.gets.to_s.split[1]
  length = 0
  while (line = client.gets.to_s.strip) != ""
    length = line[/\Acontent-length: *(\d+)/i, 1].to_i if line.downcase.start_with?("content-length")
  end
  client.read(length)
  status, text = answer(path)
  client.write("HTTP/1.1 #{status} -\r\nContent-Length: #{text.bytesize}\r\nConnection: close\r\n\r\n#{text}")
ensure
  client.close
end

server = TCPServer.new("127.0.0.1", ENV["PORT"].to_i)
Thread.new { sweep }.abort_on_exception = true
loop { Thread.new(server.accept) { |client| serve(client) } }
