// Verify a webhook of Safepay Raast: go run verify.go verify SECRET HEADERS < body. HEADERS are JSON. Prints the event, or null if
// the webhook is not Safepay's, is older than five minutes, or its headers are of another.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"time"
)

type event struct {
	ID         string `json:"identifier"`
	Type       string `json:"webhook_event_type"`
	Aggregator string `json:"aggregator_id"`
}

// Names of headers are in lower case.
func isValid(secret string, headers map[string]string, body []byte, now time.Time) bool {
	timestamp := headers["x-sfpy-timestamp"]
	at, err := time.Parse(time.RFC3339Nano, timestamp)
	if err != nil || now.Sub(at).Abs() > 5*time.Minute {
		return false
	}
	key, err := base64.StdEncoding.DecodeString(secret)
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, key)
	io.WriteString(mac, timestamp+".")
	mac.Write(body)
	if !hmac.Equal([]byte("sha256="+hex.EncodeToString(mac.Sum(nil))), []byte(headers["x-sfpy-signature"])) {
		return false
	}
	var found event
	if json.Unmarshal(body, &found) != nil {
		return false
	}
	return found == event{headers["x-sfpy-event-id"], headers["x-sfpy-event-type"], headers["x-sfpy-aggregator-id"]}
}

func main() {
	body, err := io.ReadAll(os.Stdin)
	var headers map[string]string
	if err != nil || len(os.Args) != 4 || json.Unmarshal([]byte(os.Args[3]), &headers) != nil {
		os.Exit(2)
	}
	if !isValid(os.Args[2], headers, body, time.Now()) {
		body = []byte("null")
	}
	os.Stdout.Write(body)
}
