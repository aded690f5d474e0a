# Read cases from standard input, one a line, and print `accepted` or `refused` for each. See test_docs_verifiers.py.
require_relative "verify"

$stdin.each_line(chomp: true) do |line|
  secrets, now, body, *pairs = line.split("\t", -1).map { |field| field.unpack1("m").force_encoding("UTF-8") }
  puts valid_webhook?(secrets.split(" "), pairs.each_slice(2).to_h, body, now.to_i) ? "accepted" : "refused"
end
