// Verify a webhook of Safepay Raast: go run verify.go SECRET TIMESTAMP SIGNATURE < body. Exits with 1 if it is not Safepay's.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"os"
	"time"
)

func isValid(secret, timestamp, signature string, body []byte, now time.Time) bool {
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
	return hmac.Equal([]byte("sha256="+hex.EncodeToString(mac.Sum(nil))), []byte(signature))
}

func main() {
	body, err := io.ReadAll(os.Stdin)
	if err != nil || len(os.Args) != 4 || !isValid(os.Args[1], os.Args[2], os.Args[3], body, time.Now()) {
		os.Exit(1)
	}
}
