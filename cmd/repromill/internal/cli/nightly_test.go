package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/results/regress"
	"github.com/repromill/repromill/runner/nightly"
)

// alarming is a report with one alarm, in the newest slot, of a series whose name
// a service could take for a mention.
func alarming(t *testing.T, last float64) (*regress.Report, time.Time) {
	t.Helper()
	s := regress.Series{Key: regress.Key{Suite: "load", Metric: "<!channel> & co", Model: "m"}}
	at := time.Date(2026, 3, 1, 2, 0, 0, 0, time.UTC)
	for i, v := range []float64{1, 1.001, .999, 1.002, 1, .998, 1, 1.001, last, last} {
		s.Nights = append(s.Nights, regress.Night{Slot: at.AddDate(0, 0, i), Segment: "a", Run: "R", Candidate: []float64{1000 * v}})
	}
	r, err := regress.NewReport("main", []regress.Series{s}, regress.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	return r, s.Nights[len(s.Nights)-1].Slot
}

// TestWebhook tells of alarms, in the words of the service, and of nothing else.
func TestWebhook(t *testing.T) {
	var got []string
	status := http.StatusOK
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = append(got, r.Header.Get("Content-Type")+" "+string(b))
		w.WriteHeader(status)
	}))
	defer srv.Close()
	a := &app{env: map[string]string{"HOOK": srv.URL + "/secret"}}
	bad, slot := alarming(t, .9)
	call := func(r *regress.Report, format string, news ...time.Time) error {
		return a.callWebhook(t.Context(), nightly.Webhook{URLEnv: "HOOK", Format: format}, r, news)
	}
	if err := call(bad, "slack", slot); err != nil || len(got) != 1 {
		t.Fatalf("%q, %v", got, err)
	}
	var slack struct{ Text string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(got[0], "application/json ")), &slack); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(slack.Text, "main: 1 alarm\nload/&lt;!channel&gt; &amp; co/m: 10.0% worse since 2026-03-09") {
		t.Errorf("%q", slack.Text)
	}
	if err := call(bad, "json", slot); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Schedule string
		Alarms   int
		Series   []struct{ Status string }
	}
	if err := json.Unmarshal([]byte(strings.TrimPrefix(got[1], "application/json ")), &doc); err != nil || doc.Alarms != 1 || doc.Series[0].Status != "regression" {
		t.Errorf("%+v, %v", doc, err)
	}
	// Nothing is told of an alarm that is no news, nor of a night without one.
	good, slot2 := alarming(t, 1)
	for _, err := range []error{call(bad, "slack"), call(bad, "slack", slot.AddDate(0, 0, -1)), call(good, "slack", slot2)} {
		if err != nil {
			t.Error(err)
		}
	}
	if len(got) != 2 {
		t.Errorf("told %q", got[2:])
	}
	// What goes wrong never shows the address, which is a secret with most services.
	status = http.StatusInternalServerError
	errs := []error{call(bad, "slack", slot)}
	a.env["HOOK"] = "http://127.0.0.1:1/secret"
	errs = append(errs, call(bad, "slack", slot))
	a.env["HOOK"] = ":secret"
	errs = append(errs, call(bad, "slack", slot))
	a.env["HOOK"] = ""
	errs = append(errs, call(bad, "slack", slot))
	for _, err := range errs {
		if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "HOOK") {
			t.Errorf("%v", err)
		}
	}
}

func TestVaried(t *testing.T) {
	for _, c := range [][]string{
		{"x --commit a --yes", "commit", "b", "x --yes --commit b"},
		{"x --image=a", "image", "b", "x --image b"},
		{"x", "server", "vllm==1", "x --server vllm==1"},
		{"x --commit", "commit", "b", "x --commit b"},
	} {
		if got := varied(strings.Fields(c[0]), c[1], c[2]); !slices.Equal(got, strings.Fields(c[3])) {
			t.Errorf("%q: %q, want %q", c[0], got, c[3])
		}
	}
}
