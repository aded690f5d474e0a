// Package shop pays its sellers by payouts.
package shop

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const attempts = 3

// Shop pays orders, and learns from webhooks what became of them. It implements http.Handler.
type Shop struct {
	PSPURL, APIKey, WebhookSecret string

	mutex  sync.Mutex
	orders map[string]order
}

type order struct {
	status  string
	version int
}

// Pay pays an order. It is safe to repeat: the order's id is the idempotency key.
func (shop *Shop) Pay(id, amount string) error {
	body, err := json.Marshal(map[string]string{"merchant_reference": id, "amount": amount, "dest_type": "BANK", "bank_code": "HBL",
		"account_number": "12345678900012"})
	if err != nil {
		return err
	}
	for range [attempts]int{} {
		if err = shop.send(id, body); err == nil || errors.Is(err, errRefused) {
			return err
		}
	}
	return err // the payout may exist, so nobody may assume that it failed
}

var errRefused = errors.New("the PSP refused the payout")

func (shop *Shop) send(key string, body []byte) error {
	request, err := http.NewRequest("POST", shop.PSPURL+"/api/v1/payouts", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header = http.Header{"X-Api-Key": {shop.APIKey}, "X-Idempotency-Key": {key}, "Content-Type": {"application/json"}}
	response, err := (&http.Client{Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	switch {
	case err != nil || response.StatusCode < 300:
		return err
	case response.StatusCode >= 500 || response.StatusCode == 429:
		return fmt.Errorf("the PSP answered %d", response.StatusCode)
	default:
		return fmt.Errorf("%w: %s", errRefused, answer)
	}
}

// Status returns the last known status of an order's payout, or "".
func (shop *Shop) Status(id string) string {
	shop.mutex.Lock()
	defer shop.mutex.Unlock()
	return shop.orders[id].status
}

// ServeHTTP receives a webhook.
func (shop *Shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil || !isValid(shop.WebhookSecret, r.Header, body) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var event struct {
		Data struct {
			Reference string `json:"merchant_reference"`
			Status    string
			Version   int
		}
	}
	if err := json.Unmarshal(body, &event); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	shop.mutex.Lock()
	defer shop.mutex.Unlock()
	if shop.orders == nil {
		shop.orders = map[string]order{}
	}
	// Webhooks can arrive twice and in any order: only a newer version counts.
	if event.Data.Version > shop.orders[event.Data.Reference].version {
		shop.orders[event.Data.Reference] = order{event.Data.Status, event.Data.Version}
	}
	w.WriteHeader(http.StatusNoContent)
}

// isValid returns whether a webhook is signed with our secret, within five minutes of now, either way.
func isValid(secret string, headers http.Header, body []byte) bool {
	id, stamp := headers.Get("webhook-id"), headers.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if age := time.Now().Unix() - seconds; id == "" || err != nil || age > 300 || age < -300 {
		return false
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + stamp + "."))
	mac.Write(body)
	expected := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for _, given := range strings.Split(headers.Get("webhook-signature"), " ") {
		if hmac.Equal([]byte(expected), []byte(given)) {
			return true
		}
	}
	return false
}
