package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// upstream is the site's proxy for a host, nil for none. What the host's name
// stands for is that proxy's to know; an address that is known here, and is a
// private one, is refused all the same.
func (p *Proxy) upstream(ctx context.Context, scheme, host, port string) (*url.URL, error) {
	if p.cfg.Upstream == nil {
		return nil, nil
	}
	via, err := p.cfg.Upstream(&url.URL{Scheme: scheme, Host: net.JoinHostPort(host, port)})
	if err != nil {
		return nil, fmt.Errorf("choose the site's proxy: %w", err)
	}
	if via == nil || listed(p.cfg.AllowPrivate, host, port) {
		return via, nil
	}
	addrs, err := p.addresses(ctx, host)
	if err != nil {
		return via, nil // behind such a proxy, public names need not resolve
	}
	for _, a := range addrs {
		if !Public(a) {
			return nil, notPublic(host, a)
		}
	}
	return via, nil
}

func notPublic(host string, a netip.Addr) error {
	return &refusedError{fmt.Sprintf("%s is at %s, which is not a public address; list it as a private host in the configuration if it is meant", host, a)}
}

// through asks the site's proxy for a connection (RFC 9110, section 9.3.6).
func (p *Proxy) through(ctx context.Context, via *url.URL, hostport string) (net.Conn, error) {
	port := via.Port()
	if port == "" {
		port = map[string]string{"https": "443"}[via.Scheme]
		if port == "" {
			port = "80"
		}
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(via.Hostname(), port))
	if err != nil {
		return nil, fmt.Errorf("reach the site's proxy: %w", err)
	}
	if via.Scheme == "https" {
		c = tls.Client(c, &tls.Config{ServerName: via.Hostname(), MinVersion: tls.VersionTLS12})
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline) // it fails on a closed connection only, which the next step tells
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: hostport}, Host: hostport, Header: http.Header{}}
	if u := via.User; u != nil {
		word, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+word)))
	}
	err = req.Write(c)
	br := bufio.NewReader(c)
	var resp *http.Response
	if err == nil {
		resp, err = http.ReadResponse(br, req)
	}
	if err == nil && resp.StatusCode/100 != 2 {
		err = errors.New("it answers " + strings.TrimSpace(resp.Status))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ask the site's proxy for %s: %w", hostport, err), c.Close())
	}
	_ = c.SetDeadline(time.Time{})
	return &buffered{c, br}, nil
}

// buffered is a connection of which something was read ahead.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

func (b *buffered) CloseWrite() error {
	if cw, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return nil
}
