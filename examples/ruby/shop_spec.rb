require_relative "psp"

RSpec.configure { |config| config.include Psp::RSpec }

RSpec.describe "a returned payout" do
  it "gives the money back" do
    payout = psp.pays("returned", "250.00")
    psp.advance(60)
    psp.expect_webhook("payout.returned", payout)
    expect(psp.available).to eq("1000000.00")
  end
end
