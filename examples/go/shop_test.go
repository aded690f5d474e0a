package shop

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestAReturnedPayoutGivesTheMoneyBack(t *testing.T) {
	psp := NewPSP(t)
	payout := psp.Pays("returned", "250.00")
	psp.Expect("payout.succeeded", payout)
	if psp.Available() != "999750.00" {
		t.Error(psp.Available())
	}
	psp.Advance(time.Minute)
	psp.Expect("payout.returned", payout)
	if psp.Available() != "1000000.00" {
		t.Error(psp.Available())
	}
}

func openShop(psp *PSP) *Shop {
	shop := &Shop{PSPURL: psp.URL, APIKey: psp.APIKey, WebhookSecret: psp.WebhookSecret}
	psp.App = shop
	return shop
}

func TestTheShopLearnsThatAPayoutWasReturned(t *testing.T) {
	psp := NewPSP(t)
	shop := openShop(psp)
	if err := shop.Pay("17", "250.00"); err != nil {
		t.Fatal(err)
	}
	psp.Advance(59 * time.Second)
	if shop.Status("17") != "SUCCESS" {
		t.Error(shop.Status("17"))
	}
	psp.Advance(time.Second)
	if shop.Status("17") != "RETURNED" {
		t.Error(shop.Status("17"))
	}
}

func TestALostAnswerDoesNotPayTwice(t *testing.T) {
	psp := NewPSP(t)
	psp.Call("POST", "/sandbox/v1/faults", object{"kind": "truncated_body", "target": "api", "count": 1,
		"match": object{"method": "POST", "path": "/api/v1/payouts"}})
	if err := openShop(psp).Pay("17", "250.00"); err != nil {
		t.Fatal(err)
	}
	if payouts := psp.Call("GET", "/api/v1/payouts", nil)["data"].([]any); len(payouts) != 1 {
		t.Error(payouts)
	}
}

func TestAForgedWebhookIsRefused(t *testing.T) {
	shop := openShop(NewPSP(t))
	answer := httptest.NewRecorder()
	shop.ServeHTTP(answer, httptest.NewRequest("POST", "/webhooks", strings.NewReader(`{"type": "payout.succeeded"}`)))
	if answer.Code != http.StatusUnauthorized {
		t.Error(answer.Code)
	}
}
