// psp_test.go: gives each test a merchant of its own in PSP Sandbox. Copy it next to your tests, and change the package.
package shop

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// watch runs psp until this process ends, even if it is killed: that closes its end of the pipe. $0 is a folder for keys and the log.
const watch = `unset DATABASE_URL REDIS_URL; exec 3<&0 > "$0/log" 2>&1
psp up --ephemeral --no-seed --port 0 --ipn-port 0 --ready-file "$0/ready" < /dev/null & psp=$!
{ cat <&3; kill $psp; } & wait $psp; mv "$0/log" "$0/ended"; cat <&3; rm -rf "$0"`

type object = map[string]any

// PSP is a merchant for one test. Its clock is frozen.
type PSP struct {
	URL, APIKey, WebhookSecret string // what an application needs
	t                          *testing.T
	mutex                      sync.Mutex
	events                     []object     // the verified webhooks
	invalid                    []string     // why the others are not counted
	App                        http.Handler // the application, which gets every webhook at /webhooks, and gives the answer
}

var sandbox struct {
	sync.Once
	url, adminKey, problem string
	pipe                   io.Closer // it closes when this process ends
}

// NewPSP creates a merchant with a balance of 1000000.00. When the test ends, its ledger and its webhook deliveries are checked.
func NewPSP(t *testing.T) *PSP {
	t.Helper()
	if sandbox.Do(start); sandbox.problem != "" {
		t.Fatal(sandbox.problem)
	}
	psp := &PSP{URL: sandbox.url, t: t}
	receiver := httptest.NewServer(http.HandlerFunc(psp.receive))
	psp.mutex.Lock() // no webhook is read before its secret is known
	body := object{"name": fmt.Sprintf("%.100s", t.Name()), "opening_balance": "1000000.00", "webhook_url": receiver.URL + "/webhooks",
		"frozen_at": time.Now().UTC().Format(time.RFC3339)}
	merchant := psp.Call("POST", "/sandbox/v1/merchants", body)
	psp.APIKey, psp.WebhookSecret = merchant["api_key"].(string), merchant["webhook_secret"].(string)
	psp.mutex.Unlock()
	t.Cleanup(receiver.Close)
	t.Cleanup(func() { psp.check(merchant["merchant_id"].(string)) })
	return psp
}

// Pays creates a payout that follows a scenario, such as "returned" or "account_closed", and returns it.
func (psp *PSP) Pays(scenario, amount string) object {
	psp.t.Helper()
	key := fmt.Sprintf("%s-%d", scenario, time.Now().UnixNano())
	body := object{"merchant_reference": key, "amount": amount, "dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"}
	return psp.Call("POST", "/api/v1/payouts", body, "X-IDEMPOTENCY-KEY", key, "X-SANDBOX-SCENARIO", scenario)
}

// Available returns the merchant's available balance, such as "1000000.00".
func (psp *PSP) Available() string {
	return psp.Call("GET", "/api/v1/balance", nil)["available_balance"].(string)
}

// Advance moves the merchant's clock on, and returns when everything that fell due is done and its webhooks have arrived.
func (psp *PSP) Advance(duration time.Duration) {
	psp.t.Helper()
	if run := psp.Call("POST", "/sandbox/v1/clock/advance", object{"seconds": duration.Seconds()}); run["complete"] != true {
		psp.t.Fatalf("the clock stopped at %v: %v", run["now"], run["stopped_because"])
	}
}

// Expect returns the only webhook of this type about a payout, and fails the test with what arrived instead.
func (psp *PSP) Expect(eventType string, payout object) object {
	psp.t.Helper()
	psp.Call("POST", "/sandbox/v1/drain", nil) // what is due now is done then
	psp.mutex.Lock()
	defer psp.mutex.Unlock()
	last, found, arrived := object{}, map[any]bool{}, []object{} // an event arrives again after a lost answer, with the same id
	for _, event := range psp.events {
		if event["data"].(object)["id"] == payout["id"] && event["type"] == eventType {
			last, found[event["id"]] = event, true
		}
		arrived = append(arrived, object{"type": event["type"], "payout": event["data"].(object)["merchant_reference"]})
	}
	if len(found) != 1 {
		psp.t.Fatalf("expected %s once, but it arrived %d times.\nArrived: %v\nNot counted: %v\n"+
			"The clock is frozen: what is due later needs Advance.", eventType, len(found), arrived, psp.invalid)
	}
	return last
}

// Call sends a request, and fails the test unless it succeeds.
func (psp *PSP) Call(method, path string, body object, headers ...string) object {
	psp.t.Helper()
	content := []byte{}
	if body != nil {
		content, _ = json.Marshal(body)
	}
	request, _ := http.NewRequest(method, psp.URL+path, bytes.NewReader(content))
	headers = append(headers, "Content-Type", "application/json", "X-API-KEY", psp.APIKey, "X-ADMIN-KEY", sandbox.adminKey)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := (&http.Client{Timeout: time.Minute}).Do(request)
	if err != nil {
		psp.t.Fatalf("the sandbox does not answer: %v", err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	if response.StatusCode >= 300 {
		psp.t.Fatalf("%s %s: %d %s", method, path, response.StatusCode, text)
	}
	answer := object{}
	_ = json.Unmarshal(text, &answer) // a deletion has no body
	return answer
}

func (psp *PSP) receive(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	psp.mutex.Lock()
	defer psp.mutex.Unlock()
	event := object{}
	if !psp.isValid(r.Header, body) || json.Unmarshal(body, &event) != nil {
		psp.invalid = append(psp.invalid, "an invalid signature: "+r.Header.Get("webhook-id"))
	} else {
		psp.events = append(psp.events, event)
	}
	if psp.App != nil {
		r.Body = io.NopCloser(bytes.NewReader(body))
		psp.App.ServeHTTP(w, r)
	} else if event["id"] == nil {
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// isValid verifies a webhook: https://www.standardwebhooks.com.
func (psp *PSP) isValid(headers http.Header, body []byte) bool {
	var stamp int64
	_, _ = fmt.Sscan(headers.Get("webhook-timestamp"), &stamp)
	if age := time.Now().Unix() - stamp; age > 300 || age < -300 {
		return false
	}
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(psp.WebhookSecret, "whsec_"))
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.%s", headers.Get("webhook-id"), stamp, body)
	expected := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	return strings.Contains(" "+headers.Get("webhook-signature")+" ", " "+expected+" ")
}

// check fails the test if the merchant's books or its webhooks are not in order.
func (psp *PSP) check(merchantID string) {
	defer psp.Call("DELETE", "/sandbox/v1/merchants/"+merchantID, nil)
	for _, one := range psp.Call("GET", "/api/v1/webhook-deliveries?limit=100", nil)["data"].([]any) {
		if delivery := one.(object); delivery["status"] != "SUCCEEDED" && delivery["attempt_count"] != 0.0 {
			psp.t.Errorf("a webhook was not accepted in %v attempts: %v %v", delivery["attempt_count"], delivery["event_type"], psp.invalid)
		}
	}
	if audit := psp.Call("GET", "/sandbox/v1/audit", nil); audit["ok"] != true {
		psp.t.Errorf("the audit of the ledger found errors: %v", audit["checks"])
	}
}

// start takes the sandbox of PSP_URL, or starts one that ends with this process.
func start() {
	if sandbox.url, sandbox.adminKey = os.Getenv("PSP_URL"), os.Getenv("PSP_ADMIN_KEY"); sandbox.url != "" {
		return
	}
	folder, _ := os.MkdirTemp("", "psp-")
	command := exec.Command("sh", "-c", watch, folder)
	sandbox.pipe, _ = command.StdinPipe()
	err := command.Start()
	for polls := 0; err == nil; polls++ {
		ready := object{}
		if text, _ := os.ReadFile(folder + "/ready"); json.Unmarshal(text, &ready) == nil {
			sandbox.url, sandbox.adminKey = ready["api_url"].(string), ready["admin_key"].(string)
			return
		}
		if text, ended := os.ReadFile(folder + "/ended"); ended == nil {
			err = fmt.Errorf("%s", text)
		} else if polls == 2_400 {
			err = fmt.Errorf("It was not ready within two minutes.")
		}
		time.Sleep(50 * time.Millisecond)
	}
	sandbox.problem = "The sandbox did not start: put psp on the PATH (pipx install 'psp-sandbox[server]'), or set PSP_URL and PSP_ADMIN_KEY.\n" + err.Error()
}
