package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Probed is what a site says of an address without sending what lies there.
type Probed struct {
	// URL is what was asked for, FinalURL what answered after redirects,
	// without the signature of a content network.
	URL, FinalURL string
	Status        int
	// Header holds the headers that mean something to a caller.
	Header http.Header
	// Bytes is the size that is stated, -1 when none is.
	Bytes int64
}

// probeRedirects bounds the redirects of a probe: file hosts chain more of them
// than the sites of the table do.
const probeRedirects = 6

// elsewhere is the limit for hosts that are not in the table.
var elsewhere = Limit{Every: 200 * time.Millisecond, Conns: 4}

// Probe asks for the head of any https address: by HEAD, and where that is
// refused, by GET of the first byte. Besides the sites of the table it may ask
// any host with a public address, since nothing but a few headers comes back;
// each redirect is held to the same rules, and a token goes to the hub alone.
// Nothing is cached or retried.
//
// A status is no error here. Errors: [*BlockedError], [*TimeoutError],
// [*NotInMirrorError] with a mirror, what the network says, and the context's.
func (c *Client) Probe(ctx context.Context, raw string) (*Probed, error) {
	if c.cfg.Mirror != "" {
		return nil, &NotInMirrorError{URL: clip(userinfo.ReplaceAllString(raw, "//")), Mirror: c.cfg.Mirror, File: "(an address is not looked at offline)"}
	}
	loc, err := c.anywhere(raw)
	if err != nil {
		return nil, err
	}
	out, err := c.probe(ctx, loc, http.MethodHead)
	if err != nil {
		return nil, err
	}
	switch out.Status {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusNotImplemented:
		// Signed addresses and small servers know GET alone.
		return c.probe(ctx, loc, http.MethodGet)
	}
	return out, nil
}

// anywhere understands an address of a known site, or of any other public
// host.
func (c *Client) anywhere(raw string) (location, error) {
	u, err := parseURL(raw)
	if err != nil {
		return location{}, &BlockedError{URL: clip(userinfo.ReplaceAllString(raw, "//")), Reason: err.Error()}
	}
	if p, _ := c.byEndpoint(u); p != nil {
		return c.rebuild(raw)
	}
	if p, _ := c.byHost(u); p != nil {
		return c.rebuild(raw)
	}
	switch {
	case u.Scheme != "https" || u.Port() != "" && u.Port() != "443":
		return location{}, &BlockedError{URL: clip(u.String()), Reason: "only https on port 443 is used"}
	case !plainASCII(u.EscapedPath()) || !plainASCII(u.RawQuery):
		return location{}, &BlockedError{URL: clip(u.String()), Reason: "it holds characters that a URL may not"}
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	host := &place{site: site{name: "elsewhere", host: u.Hostname()}, limit: &elsewhere}
	return location{place: host, base: "https://" + strings.TrimSuffix(u.Host, ":443"), path: path, query: u.RawQuery, home: true}, nil
}

// probe follows the redirects of one method.
func (c *Client) probe(ctx context.Context, loc location, method string) (*Probed, error) {
	out := &Probed{URL: loc.shown()}
	auth := c.token(loc)
	kept := http.Header{}
	for hop := 0; ; hop++ {
		resp, err := c.look(ctx, loc, method, auth)
		if err != nil {
			return nil, err
		}
		h := keep(resp.Header)
		for _, k := range hopHeaders {
			if v := h.Get(k); v != "" && kept.Get(k) == "" {
				kept.Set(k, v)
			}
		}
		to := resp.Header.Get("Location")
		if !isRedirect(resp.StatusCode) || to == "" {
			for k, v := range kept {
				h[k] = v
			}
			out.Status, out.Header, out.FinalURL, out.Bytes = resp.StatusCode, h, loc.shown(), stated(resp, h)
			return out, nil
		}
		if hop == probeRedirects {
			return nil, &BlockedError{URL: out.URL, Reason: fmt.Sprintf("it redirects more than %d times", probeRedirects)}
		}
		if loc, err = c.onward(loc, to); err != nil {
			return nil, err
		}
		if c.token(loc) == "" {
			auth = ""
		}
	}
}

// onward understands where a probe is sent on to.
func (c *Client) onward(from location, to string) (location, error) {
	next, err := c.redirected(from, to)
	var blocked *BlockedError
	if err == nil || !errors.As(err, &blocked) {
		return next, err
	}
	here, err := url.Parse(from.String())
	if err != nil {
		return location{}, blocked
	}
	ref, err := here.Parse(to)
	if err != nil {
		return location{}, blocked
	}
	if next, err = c.anywhere(ref.String()); err != nil {
		if errors.As(err, &blocked) {
			blocked = &BlockedError{URL: from.shown(), Reason: "it redirects to " + blocked.URL + ": " + blocked.Reason}
		}
		return location{}, blocked
	}
	next.home = false // so that its query, which may be a signature, is not shown
	return next, nil
}

// look sends one request in its turn and returns the answer without its body.
func (c *Client) look(ctx context.Context, loc location, method, auth string) (*http.Response, error) {
	j := &job{loc: loc, url: loc.shown(), Request: Request{Accept: "*/*"}}
	key, lim := limitOf(loc)
	t, err := c.limits.acquire(ctx, key, lim, func(d time.Duration, why string) {
		c.cfg.Progress(Progress{URL: j.url, Phase: "wait", Wait: d, Reason: why, Total: -1})
	})
	if err != nil {
		return nil, err
	}
	hctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	total := time.AfterFunc(c.cfg.Timeouts.Header+c.cfg.Timeouts.Connect, func() {
		cancel(&TimeoutError{URL: j.url, What: "no answer came", After: c.cfg.Timeouts.Header + c.cfg.Timeouts.Connect})
	})
	defer total.Stop()
	req, err := http.NewRequestWithContext(hctx, method, loc.String(), nil)
	if err != nil {
		return nil, errors.Join(&BlockedError{URL: j.url, Reason: err.Error()}, t.end(nil, 0))
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	req.Header.Set("Accept", "*/*")
	req.Header.Set("Accept-Encoding", "identity")
	if method == http.MethodGet {
		req.Header.Set("Range", "bytes=0-0")
	}
	if auth != "" {
		req.Header.Set("Authorization", "Bearer "+auth)
	}
	resp, err := c.http.RoundTrip(req)
	if err != nil {
		err = c.explain(hctx, j, err)
		var d *dropped
		if errors.As(err, &d) {
			err = fmt.Errorf("look at %s: %w", j.url, d.err)
		}
		return nil, errors.Join(err, t.end(nil, 0))
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 4096) // so that the connection can be used again
	_ = resp.Body.Close()                        // nothing of it is used
	return resp, t.end(resp.Header, resp.StatusCode)
}

// stated is the size of what lies at an address, -1 when the answer does not
// say: of a part, the whole.
func stated(resp *http.Response, h http.Header) int64 {
	if n, err := strconv.ParseInt(h.Get("X-Linked-Size"), 10, 64); err == nil && n >= 0 {
		return n
	}
	if _, all, ok := strings.Cut(h.Get("Content-Range"), "/"); ok {
		if n, err := strconv.ParseInt(all, 10, 64); err == nil && n >= 0 {
			return n
		}
		return -1
	}
	if resp.StatusCode != http.StatusOK {
		return -1
	}
	return resp.ContentLength
}
