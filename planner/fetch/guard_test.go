package fetch

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestRefuseAddr(t *testing.T) {
	for addr, want := range map[string]string{
		"0.0.0.0": "this network", "0.1.2.3": "this network", "10.0.0.1": "private", "10.255.255.255": "private",
		"100.64.0.1": "carrier-grade NAT", "100.127.255.255": "carrier-grade NAT", "100.63.255.255": "", "100.128.0.0": "",
		"127.0.0.1": "loopback", "127.1.2.3": "loopback", "169.254.169.254": "link-local",
		"172.16.0.1": "private", "172.31.255.255": "private", "172.15.255.255": "", "172.32.0.0": "",
		"192.0.0.8": "protocol assignment", "192.0.2.1": "documentation", "192.88.99.1": "6to4 relay", "192.168.1.1": "private",
		"198.18.0.1": "benchmarking", "198.19.255.255": "benchmarking", "198.20.0.0": "", "198.51.100.7": "documentation", "203.0.113.7": "documentation",
		"224.0.0.1": "multicast", "239.255.255.255": "multicast", "240.0.0.1": "reserved", "255.255.255.255": "reserved",
		"8.8.8.8": "", "151.101.3.42": "",
		"::": "unspecified", "::1": "loopback", "::ffff:8.8.8.8": "IPv4-mapped", "::ffff:127.0.0.1": "IPv4-mapped", "::7f00:1": "not a global",
		"64:ff9b::7f00:1": "NAT64", "64:ff9b:1::1": "NAT64", "2001::1": "Teredo", "2001:2::1": "benchmarking", "2001:10::1": "protocol assignment",
		"2001:db8::1": "documentation", "2002:7f00:1::": "6to4", "3fff::1": "documentation", "fc00::1": "unique local", "fd12::1": "unique local",
		"fe80::1": "link-local", "fe80::1%eth0": "zoned", "fec0::1": "site-local", "ff02::1": "multicast", "100::1": "not a global",
		"5f00::1": "not a global", "2606:4700::6810:84e5": "", "2600:9000:2000::1": "", "2a04:4e42::300": "",
	} {
		if got := NotPublic(netip.MustParseAddr(addr)); got != want {
			t.Errorf("NotPublic(%s) = %q, want %q", addr, got, want)
		}
	}
	if NotPublic(netip.Addr{}) == "" {
		t.Error("the invalid address is let through")
	}
}

func TestControl(t *testing.T) {
	for addr, ok := range map[string]bool{
		"8.8.8.8:443": true, "[2606:4700::1]:443": true,
		"8.8.8.8:80": false, "8.8.8.8:22": false, "127.0.0.1:443": false, "[::ffff:10.0.0.1]:443": false, "[::1]:443": false, "nonsense": false,
	} {
		err := control("tcp", addr, nil)
		var blocked *BlockedError
		if (err == nil) != ok || !ok && !errors.As(err, &blocked) {
			t.Errorf("control(%s) = %v, want ok %v", addr, err, ok)
		}
	}
}

// TestDialGuard has a real resolver answer with addresses that must not be
// dialled, for names that are on the allow-list.
func TestDialGuard(t *testing.T) {
	lists := func(s ...string) (out [][]netip.Addr) {
		for _, list := range s {
			var addrs []netip.Addr
			for a := range strings.FieldsSeq(list) {
				addrs = append(addrs, netip.MustParseAddr(a))
			}
			out = append(out, addrs)
		}
		return out
	}
	for name, tc := range map[string]struct {
		answers [][]netip.Addr
		want    string
	}{
		"loopback":      {lists("127.0.0.1"), "loopback"},
		"metadata":      {lists("169.254.169.254"), "link-local"},
		"private":       {lists("10.1.2.3 192.168.0.1"), "private"},
		"v6 loopback":   {lists("::1"), "loopback"},
		"v6 local":      {lists("fd00::1"), "unique local"},
		"mapped":        {lists("::ffff:127.0.0.1"), "loopback"}, // the resolver itself unmaps it
		"nat64":         {lists("64:ff9b::7f00:1"), "NAT64"},
		"both families": {lists("127.0.0.1 ::1"), "loopback"},
		// A public address that leads nowhere first (3ffe::/16, returned to
		// IANA), then another answer to the same question.
		"rebinding": {lists("3ffe::1", "127.0.0.1"), "loopback"},
	} {
		t.Run(name, func(t *testing.T) {
			ns, resolver := newNameServer(t, map[string][][]netip.Addr{"huggingface.co": tc.answers})
			c, _ := client(t, nil, func(cfg *Config) {
				cfg.Resolver = resolver
				cfg.Timeouts.Connect = 500 * time.Millisecond
			})
			_, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/api/models/a/b"})
			var blocked *BlockedError
			if !errors.As(err, &blocked) || !strings.Contains(blocked.Reason, tc.want) {
				t.Fatalf("error = %v, want a blocked address that is %s", err, tc.want)
			}
			if blocked.UserError() == "" || !strings.Contains(err.Error(), "huggingface.co") {
				t.Errorf("error = %v", err)
			}
			if name == "rebinding" && ns.questions("huggingface.co") < 4 {
				t.Errorf("the name was looked up %d times, want a second round", ns.questions("huggingface.co"))
			}
		})
	}
}

// TestRedirectToRefusedAddress follows an allowed host to an allowed pattern
// whose name leads to the metadata service.
func TestRedirectToRefusedAddress(t *testing.T) {
	_, resolver := newNameServer(t, map[string][][]netip.Addr{"cas-bridge.xethub.hf.co": {{netip.MustParseAddr("169.254.169.254")}}})
	srv, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://cas-bridge.xethub.hf.co/xet-bridge-us/abc?X-Amz-Signature=secret", http.StatusFound)
	})
	c, _ := client(t, srv, func(cfg *Config) { cfg.Resolver = resolver })
	_, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/a/b/resolve/main/config.json"})
	var blocked *BlockedError
	if !errors.As(err, &blocked) || !strings.Contains(blocked.Reason, "link-local") || strings.Contains(err.Error(), "secret") {
		t.Errorf("error = %v", err)
	}
}

func TestRedirectsAreRevalidated(t *testing.T) {
	inner, hits := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("internal")) })
	var to string
	srv, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusFound)
	})
	c, _ := client(t, srv, nil)
	for _, to = range []string{
		inner.URL + "/x",
		"http://169.254.169.254/latest/meta-data/",
		"https://169.254.169.254/latest/meta-data/",
		"https://[::ffff:169.254.169.254]/",
		"https://evil.example/?u=huggingface.co",
		"https://huggingface.co.evil.example/",
		"https://xethub.hf.co.evil.example/",
		"http://cas-bridge.xethub.hf.co/plain",
		"https://cas-bridge.xethub.hf.co:8443/port",
		"https://user:secret@huggingface.co/x",
		"//evil.example/x",
		"ftp://huggingface.co/x",
		"file:///etc/passwd",
		"javascript:alert(1)",
		"https://arxiv.org/e-print/2401.00001",
		"https://huggingface.co:444/x",
		"https://%zz/",
	} {
		_, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/redirects", MaxAge: -1})
		var blocked *BlockedError
		if !errors.As(err, &blocked) {
			t.Errorf("redirect to %s: error = %v, want a BlockedError", to, err)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("error shows a password: %v", err)
		}
	}
	if hits.get() != 0 {
		t.Errorf("the inner server was asked %d times", hits.get())
	}
}

func TestRedirectCount(t *testing.T) {
	srv, n := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/r/0" {
			_, _ = w.Write([]byte("end"))
			return
		}
		http.Redirect(w, r, "/r/"+string(r.URL.Path[3]-1), http.StatusTemporaryRedirect)
	})
	c, _ := client(t, srv, nil)
	res, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/r/3"})
	if err != nil || string(res.Body) != "end" || res.FinalURL != srv.URL+"/r/0" || res.URL != srv.URL+"/r/3" {
		t.Errorf("three redirects: %+v, %v", res, err)
	}
	var blocked *BlockedError
	if _, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/r/4"}); !errors.As(err, &blocked) {
		t.Errorf("four redirects: error = %v", err)
	}
	if n.get() != 8 {
		t.Errorf("%d requests, want 4 and 4", n.get())
	}
}

// TestGuardBelowAllowList asks the transport itself, as if the allow-list had
// a hole: the dialer still refuses all but the configured endpoint.
func TestGuardBelowAllowList(t *testing.T) {
	srv, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {})
	other, hits := serve(t, func(w http.ResponseWriter, _ *http.Request) {})
	c, _ := client(t, srv, nil)
	for url, ok := range map[string]bool{srv.URL: true, other.URL: false, strings.Replace(srv.URL, "127.0.0.1", "localhost", 1): false} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.http.RoundTrip(req)
		if (err == nil) != ok {
			t.Errorf("%s: error = %v, want ok %v", url, err, ok)
		}
		if resp != nil {
			_ = resp.Body.Close()
		}
	}
	if hits.get() != 0 {
		t.Error("the other server was reached")
	}
}

// TestCanonicalEndpointIsGuarded: naming the site's own address as its
// endpoint, as HF_ENDPOINT often does, exempts nothing.
func TestCanonicalEndpointIsGuarded(t *testing.T) {
	_, resolver := newNameServer(t, map[string][][]netip.Addr{"huggingface.co": {{netip.MustParseAddr("127.0.0.1")}}})
	c, _ := client(t, nil, func(cfg *Config) {
		cfg.Resolver = resolver
		cfg.Endpoints = map[Site]string{HF: "https://huggingface.co/"}
	})
	var blocked *BlockedError
	if _, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/x"}); !errors.As(err, &blocked) {
		t.Errorf("error = %v", err)
	}
}

// TestNoProxyFromEnvironment proves that a proxy variable changes nothing.
func TestNoProxyFromEnvironment(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, k := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"} {
		t.Setenv(k, "http://"+ln.Addr().String())
	}
	_, resolver := newNameServer(t, map[string][][]netip.Addr{"huggingface.co": {{netip.MustParseAddr("127.0.0.1")}}})
	c, _ := client(t, nil, func(cfg *Config) { cfg.Resolver = resolver })
	if c.http.Proxy != nil {
		t.Error("the transport has a proxy")
	}
	var blocked *BlockedError
	if _, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/x"}); !errors.As(err, &blocked) {
		t.Errorf("error = %v, want the dial guard's", err)
	}
}
