//go:build linux && cluster

package kueue

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// front stands before the API server and can fail in its place.
type front struct {
	*httptest.Server
	fail atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool]
}

func newFront(t *testing.T) (*front, *rest.Config) {
	t.Helper()
	real, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(real.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(real)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = transport
	f := &front{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fail := f.fail.Load(); fail != nil && (*fail)(w, r) {
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Close)
	return f, &rest.Config{Host: f.URL, QPS: -1}
}

func (f *front) failing(fail func(w http.ResponseWriter, r *http.Request) bool) {
	if fail == nil {
		f.fail.Store(nil)
		return
	}
	f.fail.Store(&fail)
}

func status(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message})
}

func through(t *testing.T, r *recorder, cfg *rest.Config) *Executor {
	t.Helper()
	e := liveExecutor(t, r.cfg)
	c, err := newClient(cfg, "repromill")
	if err != nil {
		t.Fatal(err)
	}
	e.c = c
	return e
}
