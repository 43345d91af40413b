package fetch

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
)

// reserved4 are the IPv4 blocks that are no address of a public server, from
// the IANA IPv4 special-purpose address registry (RFC 6890) and RFC 7526.
var reserved4 = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "protocol assignment"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), "6to4 relay"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
}

// global6 is the one IPv6 block that public servers live in; reserved6 are the
// parts of it that lead elsewhere, and names for blocks outside of it (IANA
// IPv6 special-purpose address registry).
var (
	global6   = netip.MustParsePrefix("2000::/3")
	reserved6 = []struct {
		prefix netip.Prefix
		what   string
	}{
		{netip.MustParsePrefix("::1/128"), "loopback"},
		{netip.MustParsePrefix("::/128"), "unspecified"},
		{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4-mapped"},
		{netip.MustParsePrefix("64:ff9b::/96"), "NAT64"},
		{netip.MustParsePrefix("64:ff9b:1::/48"), "NAT64"},
		{netip.MustParsePrefix("2001::/32"), "Teredo"},
		{netip.MustParsePrefix("2001:2::/48"), "benchmarking"},
		{netip.MustParsePrefix("2001::/23"), "protocol assignment"},
		{netip.MustParsePrefix("2001:db8::/32"), "documentation"},
		{netip.MustParsePrefix("2002::/16"), "6to4"},
		{netip.MustParsePrefix("3fff::/20"), "documentation"},
		{netip.MustParsePrefix("fc00::/7"), "unique local"},
		{netip.MustParsePrefix("fe80::/10"), "link-local"},
		{netip.MustParsePrefix("fec0::/10"), "site-local"},
		{netip.MustParsePrefix("ff00::/8"), "multicast"},
	}
)

// NotPublic says why an address is not that of a public server, or "". It is
// the one place that knows: whatever dials for this program asks it.
func NotPublic(a netip.Addr) string {
	if !a.IsValid() {
		return "no valid address"
	}
	if a.Is4() {
		for _, r := range reserved4 {
			if r.prefix.Contains(a) {
				return r.what
			}
		}
		return ""
	}
	if a.Zone() != "" {
		return "zoned"
	}
	for _, r := range reserved6 {
		// Prefix.Contains is never true between a 4-in-6 address and a prefix.
		if r.prefix.Contains(a) || a.Is4In6() && r.what == "IPv4-mapped" {
			return r.what
		}
	}
	if !global6.Contains(a) {
		return "not a global"
	}
	return ""
}

// control is called with the address that a socket is about to connect to:
// after every name look-up, so a name cannot change its address in between.
func control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return &BlockedError{URL: address, Reason: "its address cannot be read"}
	}
	if what := NotPublic(ap.Addr()); what != "" {
		return &BlockedError{URL: address, Reason: fmt.Sprintf("%s is a %s address, not one of a public server", ap.Addr(), what)}
	}
	if ap.Port() != 443 {
		return &BlockedError{URL: address, Reason: "only port 443 is used"}
	}
	return nil
}

// newTransport makes the HTTP transport whose connections all pass control,
// except those to the host:port of an endpoint or proxy that the user
// configured. It takes no proxy from the environment, keeps no cookies and
// does not decompress: see [Client.readBody].
func newTransport(cfg *Config, exempt map[string]bool, proxy *url.URL) *http.Transport {
	guarded := &net.Dialer{Timeout: cfg.Timeouts.Connect, Resolver: cfg.Resolver, Control: control}
	open := &net.Dialer{Timeout: cfg.Timeouts.Connect, Resolver: cfg.Resolver}
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if exempt[addr] {
				return open.DialContext(ctx, network, addr)
			}
			return guarded.DialContext(ctx, network, addr)
		},
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.RootCAs},
		TLSHandshakeTimeout:    cfg.Timeouts.Connect,
		ResponseHeaderTimeout:  cfg.Timeouts.Header,
		MaxResponseHeaderBytes: 256 << 10,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        cfg.Timeouts.Idle,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
	}
	if proxy != nil {
		t.Proxy = http.ProxyURL(proxy)
	}
	return t
}
