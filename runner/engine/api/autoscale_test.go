package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/repromill/repromill/suites/load/simserver"
)

// TestAutoscaleExample: what the example for KEDA asks Prometheus for is a gauge
// that servers export, of a Service that the other example makes.
func TestAutoscaleExample(t *testing.T) {
	const dir = "../../../examples/cluster/"
	scale, err := os.ReadFile(dir + "autoscale.yaml")
	if err != nil {
		t.Fatal(err)
	}
	serving, err := os.ReadFile(dir + "serving.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`query: sum\(([a-zA-Z_:]+)\{namespace="([a-z-]+)", service="([a-z-]+)"\}\)\n`).FindSubmatch(scale)
	if m == nil {
		t.Fatalf("no query is found in\n%s", scale)
	}
	metric, namespace, service := string(m[1]), string(m[2]), string(m[3])
	if !strings.Contains(string(serving), "kind: Service\nmetadata: {name: "+service+", namespace: "+namespace+"}\n") {
		t.Errorf("serving.yaml has no Service %s in namespace %s", service, namespace)
	}
	_, engine := serve(t, nil)
	simulated := httptest.NewServer(simserver.New(simserver.Config{}))
	defer simulated.Close()
	for name, url := range map[string]string{"the embedded engine": engine, "the simulated server": simulated.URL} {
		resp, err := http.Get(url + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(page), "# TYPE "+metric+" gauge\n") || !regexp.MustCompile(`(?m)^`+metric+`(\{[^}]*\})? [0-9.]+$`).Match(page) {
			t.Errorf("%s exports no gauge %s:\n%s", name, metric, page)
		}
	}
}
