// Package proxy is an HTTP proxy that lets a sandboxed command reach named
// hosts and nothing else.
//
// It speaks CONNECT (for TLS) and the absolute-form of plain HTTP (RFC 9112,
// section 3.2.2). A request passes when its host and port are on the list
// exactly and the address that the proxy itself resolves is a public one; a
// private, loopback or link-local address passes only for a host and port that
// the user configured, such as a package index in the house. TLS is not opened.
package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/repromill/repromill/planner/fetch"
)

// Config says what may pass. It is plain data but for the functions, which
// may be nil.
type Config struct {
	// Allow lists "host:port" pairs; names are compared without case.
	Allow []string `json:"allow"`
	// AllowPrivate lists the pairs that may lie at a private address. It is
	// the user's word, never a plan's. A pair still has to be in Allow.
	AllowPrivate []string `json:"allow_private,omitempty"`
	// Log receives every request once, when it ends or is refused.
	Log func(Record) `json:"-"`
	// Resolve replaces the system's resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error) `json:"-"`
	// Upstream is the site's own proxy for a URL of which only scheme and host
	// are set, nil for none, as net/http's Transport.Proxy has it.
	Upstream func(*url.URL) (*url.URL, error) `json:"-"`
	// DialTimeout bounds resolving and connecting; 0 means 30 s.
	DialTimeout time.Duration `json:"dial_timeout,omitempty"`
	// MaxConns bounds concurrent connections; 0 means 64.
	MaxConns int `json:"max_conns,omitempty"`
}

// Record is one request.
type Record struct {
	Method  string `json:"method"`
	Host    string `json:"host"` // "host:port"
	Allowed bool   `json:"allowed"`
	Why     string `json:"why,omitempty"`  // of a refusal or failure
	Sent    int64  `json:"sent,omitempty"` // bytes towards the host
	Got     int64  `json:"got,omitempty"`  // bytes back
}

// Proxy is a running proxy.
type Proxy struct {
	cfg   Config
	l     net.Listener
	slots chan struct{}

	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
	wg     sync.WaitGroup
}

// Serve starts a proxy on l, which it owns from here on.
func Serve(l net.Listener, cfg Config) *Proxy {
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = 30 * time.Second
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = 64
	}
	if cfg.Resolve == nil {
		cfg.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	p := &Proxy{cfg: cfg, l: l, conns: map[net.Conn]bool{}, slots: make(chan struct{}, cfg.MaxConns)}
	p.wg.Add(1)
	go p.accept()
	return p
}

// Close stops the proxy, cuts every connection and waits for their ends.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	err := p.l.Close()
	p.wg.Wait()
	return err
}

func (p *Proxy) accept() {
	defer p.wg.Done()
	for {
		c, err := p.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, or the client was gone before the accept.
			time.Sleep(10 * time.Millisecond)
			if p.isClosed() {
				return
			}
			continue
		}
		p.slots <- struct{}{}
		if !p.track(c) {
			c.Close()
			<-p.slots
			return
		}
		p.wg.Add(1)
		go func() {
			defer p.wg.Done()
			defer func() { <-p.slots }()
			defer p.untrack(c)
			p.serve(c)
		}()
	}
}

func (p *Proxy) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

func (p *Proxy) track(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) untrack(c net.Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	c.Close()
}

const (
	headerTimeout  = 30 * time.Second
	maxHeaderBytes = 64 << 10
)

// serve answers one connection's requests until it ends.
func (p *Proxy) serve(c net.Conn) {
	limited := &io.LimitedReader{R: c}
	br := bufio.NewReader(limited)
	for {
		limited.N = maxHeaderBytes
		c.SetReadDeadline(time.Now().Add(headerTimeout))
		req, err := http.ReadRequest(br)
		if err != nil {
			if limited.N <= 0 {
				refuse(c, http.StatusRequestHeaderFieldsTooLarge, "the request's header is too long")
			}
			return
		}
		c.SetReadDeadline(time.Time{})
		limited.N = 1 << 62
		if req.Method == http.MethodConnect {
			p.tunnel(c, br, req)
			return
		}
		if !p.forward(c, req) {
			return
		}
	}
}

// tunnel joins the client with the host it names.
func (p *Proxy) tunnel(c net.Conn, br *bufio.Reader, req *http.Request) {
	rec := Record{Method: "CONNECT", Host: req.Host}
	up, err := p.dial(context.Background(), req.Host)
	if err != nil {
		p.fail(c, &rec, err)
		return
	}
	if !p.track(up) {
		up.Close()
		return
	}
	defer p.untrack(up)
	rec.Allowed = true
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	var sent int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		sent, _ = io.Copy(up, br)
		closeWrite(up)
	}()
	rec.Got, _ = io.Copy(c, up)
	closeWrite(c)
	// A host that has closed is not owed more of the client's words.
	c.SetReadDeadline(time.Now().Add(headerTimeout))
	<-done
	rec.Sent = sent
	p.log(rec)
}

func closeWrite(c net.Conn) {
	if cw, ok := c.(interface{ CloseWrite() error }); ok {
		cw.CloseWrite()
	}
}

// hopByHop are the header fields that end at a proxy (RFC 9110, section 7.6.1).
var hopByHop = []string{"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// forward passes one plain HTTP request on; it reports whether the connection
// can take another.
func (p *Proxy) forward(c net.Conn, req *http.Request) bool {
	rec := Record{Method: req.Method, Host: req.URL.Host}
	if req.URL.Scheme != "http" || req.URL.Host == "" {
		rec.Host = req.Host
		p.fail(c, &rec, &refusedError{"this is a proxy: it takes CONNECT and absolute http:// URLs only"})
		return false
	}
	if req.URL.Port() == "" {
		rec.Host = net.JoinHostPort(req.URL.Hostname(), "80")
	}
	target := rec.Host
	keep := !req.Close
	for _, f := range req.Header.Values("Connection") {
		for _, name := range strings.Split(f, ",") {
			req.Header.Del(textproto.TrimString(name))
		}
	}
	for _, h := range hopByHop {
		req.Header.Del(h)
	}
	req.RequestURI = ""
	tr := &http.Transport{
		DisableKeepAlives:     true,
		DisableCompression:    true,
		ResponseHeaderTimeout: 5 * time.Minute,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return p.dial(ctx, target)
		},
	}
	if via, err := p.plain(req.Context(), target); err != nil {
		p.fail(c, &rec, err)
		return false
	} else if via != nil {
		tr.Proxy, tr.DialContext = http.ProxyURL(via), nil
	}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		p.fail(c, &rec, err)
		return false
	}
	defer resp.Body.Close()
	rec.Allowed = true
	for _, h := range hopByHop {
		resp.Header.Del(h)
	}
	resp.Close = !keep
	counted := &countingReader{r: resp.Body}
	resp.Body = io.NopCloser(counted)
	err = resp.Write(c)
	rec.Got, rec.Sent = counted.n, max(req.ContentLength, 0)
	p.log(rec)
	return err == nil && keep
}

type countingReader struct {
	r io.Reader
	n int64
}

func (r *countingReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	r.n += int64(n)
	return n, err
}

// refusedError is a request that the rules forbid.
type refusedError struct{ why string }

func (e *refusedError) Error() string { return e.why }

func (p *Proxy) fail(c net.Conn, rec *Record, err error) {
	var refused *refusedError
	status := http.StatusBadGateway
	if errors.As(err, &refused) {
		status = http.StatusForbidden
		err = refused
	} else {
		rec.Allowed = true
	}
	rec.Why = err.Error()
	p.log(*rec)
	refuse(c, status, rec.Why)
}

func refuse(c net.Conn, status int, why string) {
	c.SetWriteDeadline(time.Now().Add(headerTimeout))
	fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n",
		status, http.StatusText(status), len(why)+1, why)
}

func (p *Proxy) log(rec Record) {
	if p.cfg.Log != nil {
		p.cfg.Log(rec)
	}
}

// allowed splits a "host:port" that is on the list.
func (p *Proxy) allowed(hostport string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(hostport)
	if err != nil || host == "" || port == "" {
		return "", "", &refusedError{fmt.Sprintf("%q is not host:port", hostport)}
	}
	host = strings.TrimSuffix(host, ".")
	if !listed(p.cfg.Allow, host, port) {
		return "", "", &refusedError{fmt.Sprintf("%s is not among the hosts this run may reach", net.JoinHostPort(host, port))}
	}
	return host, port, nil
}

// plain is the site's proxy for a request of plain HTTP to an allowed host.
func (p *Proxy) plain(ctx context.Context, hostport string) (*url.URL, error) {
	host, port, err := p.allowed(hostport)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.DialTimeout)
	defer cancel()
	return p.upstream(ctx, "http", host, port)
}

// dial connects to an allowed host at an allowed address.
func (p *Proxy) dial(ctx context.Context, hostport string) (net.Conn, error) {
	host, port, err := p.allowed(hostport)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.DialTimeout)
	defer cancel()
	if via, err := p.upstream(ctx, "https", host, port); err != nil {
		return nil, err
	} else if via != nil {
		return p.through(ctx, via, net.JoinHostPort(host, port))
	}
	addrs, err := p.addresses(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", host, err)
	}
	private := listed(p.cfg.AllowPrivate, host, port)
	var last error
	for _, a := range addrs {
		if !private && !Public(a) {
			last = notPublic(host, a)
			continue
		}
		// The address that was judged is the one dialled, so a second answer
		// of the resolver changes nothing.
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(a.Unmap().String(), port))
		if err == nil {
			return c, nil
		}
		last = err
	}
	if last == nil {
		last = errors.New("no address")
	}
	return nil, last
}

func (p *Proxy) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	return p.cfg.Resolve(ctx, host)
}

func listed(list []string, host, port string) bool {
	return slices.ContainsFunc(list, func(hp string) bool {
		h, pt, err := net.SplitHostPort(hp)
		return err == nil && pt == port && strings.EqualFold(strings.TrimSuffix(h, "."), host)
	})
}

// Public reports whether a is an address on the public internet.
func Public(a netip.Addr) bool { return fetch.NotPublic(a.Unmap().WithZone("")) == "" }
