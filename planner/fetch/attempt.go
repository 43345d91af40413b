package fetch

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"
)

const (
	maxRedirects = 3
	maxExcerpt   = 512
)

// answer is what a site sent, its body in a file.
type answer struct {
	status   int
	header   http.Header
	finalURL string
	path     string
	head     []byte // the first maxExcerpt bytes
	sum      string
	size     int64
}

// discard removes the file if it was not stored.
func (a *answer) discard() {
	if a.path != "" {
		_ = os.Remove(a.path) // gone when it was stored
	}
}

// dropped is a failure of the connection: worth another attempt.
type dropped struct{ err error }

func (d *dropped) Error() string { return d.err.Error() }
func (d *dropped) Unwrap() error { return d.err }

// fetch asks the site until it answers, within the retry budget.
func (c *Client) fetch(ctx context.Context, j *job, old *entry) (*answer, error) {
	p := &partial{}
	defer p.remove()
	var waited time.Duration
	for n := 1; ; n++ {
		a, err := c.attempt(ctx, j, old, p)
		if err == nil {
			if err = c.check(j, a); err == nil {
				return a, nil
			}
			a.discard()
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("get %s: %w", j.url, ctx.Err())
		}
		wait, again := c.retryIn(err, n)
		if !again || waited+wait > c.cfg.Retry.Budget {
			var d *dropped
			if errors.As(err, &d) {
				return nil, fmt.Errorf("get %s (%d attempts): %w", j.url, n, d.err)
			}
			return nil, err
		}
		c.cfg.Progress(Progress{URL: j.url, Phase: "retry", Wait: wait, Reason: err.Error(), Total: -1})
		if err := c.cfg.Sleep(ctx, wait); err != nil {
			return nil, fmt.Errorf("get %s: %w", j.url, err)
		}
		waited += wait
	}
}

// retryIn is how long to wait before attempt n+1, and whether to make it.
func (c *Client) retryIn(err error, n int) (time.Duration, bool) {
	if n >= c.cfg.Retry.Attempts {
		return 0, false
	}
	backoff := min(c.cfg.Retry.Base<<(n-1), c.cfg.Retry.MaxBackoff)
	// Half of it is random, so that processes that failed together do not
	// come back together.
	backoff = backoff/2 + time.Duration(c.cfg.Jitter()*float64(backoff)/2)
	var status *StatusError
	var d *dropped
	switch {
	case errors.As(err, &status):
		if !retryStatus(status.Status, status.Header) || status.RetryAfter > c.cfg.Retry.MaxWait {
			return 0, false
		}
		return max(backoff, status.RetryAfter), true
	case errors.As(err, &d), errors.Is(err, ErrTransient):
		return backoff, true
	}
	return 0, false
}

// check lets the caller look at an answer before it is stored.
func (c *Client) check(j *job, a *answer) error {
	if j.Check == nil || a.status < 200 || a.status > 299 {
		return nil
	}
	res := &Response{
		URL: j.url, FinalURL: a.finalURL, Status: a.status, Header: a.header.Clone(),
		Path: a.path, Size: a.size, SHA256: a.sum, FetchedAt: c.cfg.Now().UTC(),
	}
	if !j.NoBody {
		var err error
		if res.Body, err = os.ReadFile(a.path); err != nil {
			return fmt.Errorf("read body of %s: %w", j.url, err)
		}
	}
	return j.Check(res)
}

// attempt follows the redirects of one try.
func (c *Client) attempt(ctx context.Context, j *job, old *entry, p *partial) (*answer, error) {
	loc := j.loc
	// The token is for a request that began at the hub and never left it.
	auth := c.token(loc)
	kept := http.Header{}
	for hop := 0; ; hop++ {
		a, next, err := c.hop(ctx, j, loc, auth, old, p)
		if err != nil {
			return nil, err
		}
		for _, k := range hopHeaders {
			if v := a.header.Get(k); v != "" && kept.Get(k) == "" {
				kept.Set(k, v)
			}
		}
		if next == "" {
			for k, v := range kept {
				a.header[k] = v
			}
			return a, nil
		}
		if hop == maxRedirects {
			return nil, &BlockedError{URL: j.url, Reason: fmt.Sprintf("it redirects more than %d times", maxRedirects)}
		}
		if loc, err = c.redirected(loc, next); err != nil {
			return nil, err
		}
		if c.token(loc) == "" {
			auth = ""
		}
	}
}

// hop sends one request in its turn. It returns the answer, or where the
// answer points to.
func (c *Client) hop(ctx context.Context, j *job, loc location, auth string, old *entry, p *partial) (a *answer, next string, err error) {
	key, lim := limitOf(loc)
	t, err := c.limits.acquire(ctx, key, lim, func(d time.Duration, why string) {
		c.cfg.Progress(Progress{URL: j.url, Phase: "wait", Wait: d, Reason: why, Total: -1})
	})
	if err != nil {
		var status *StatusError
		if errors.As(err, &status) {
			status.URL = j.url
		}
		return nil, "", err
	}
	var header http.Header
	var status int
	defer func() {
		if terr := t.end(header, status); terr != nil && err == nil {
			a.discard()
			a, err = nil, terr
		}
	}()

	hctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	total := time.AfterFunc(j.Timeout, func() {
		cancel(&TimeoutError{URL: j.url, What: "the answer did not end", After: j.Timeout})
	})
	defer total.Stop()

	req, err := c.newRequest(hctx, j, loc, auth, old, p)
	if err != nil {
		return nil, "", err
	}
	resp, err := c.http.RoundTrip(req)
	if err != nil {
		return nil, "", c.explain(hctx, j, err)
	}
	defer resp.Body.Close()
	header, status = resp.Header, resp.StatusCode
	to := resp.Header.Get("Location")
	switch {
	case isRedirect(status) && to != "":
		_, _ = io.CopyN(io.Discard, resp.Body, 4096) // so that the connection can be used again
		return &answer{header: keep(header)}, to, nil
	case status == http.StatusNotModified && old != nil:
		return &answer{status: status, header: keep(header), finalURL: loc.shown()}, "", nil
	case retryStatus(status, header):
		head, _ := io.ReadAll(io.LimitReader(resp.Body, maxExcerpt)) // an excerpt is better than none
		return nil, "", c.refusal(j, status, header, head)
	}
	if a, err = c.readBody(hctx, cancel, j, resp, p); err != nil {
		return nil, "", err
	}
	a.finalURL = loc.shown()
	if loc.place.throttled(a.status, a.head) {
		a.discard()
		return nil, "", c.refusal(j, http.StatusTooManyRequests, header, a.head)
	}
	return a, "", nil
}

func (c *Client) refusal(j *job, status int, h http.Header, head []byte) *StatusError {
	return &StatusError{
		URL: j.url, Status: status, Header: keep(h), Excerpt: string(head),
		RetryAfter: askedWait(h, status, c.cfg.Now()),
	}
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

func (c *Client) newRequest(ctx context.Context, j *job, loc location, auth string, old *entry, p *partial) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, loc.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("build request for %s: %w", j.url, err)
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	req.Header.Set("Accept", j.Accept)
	req.Header.Set("Accept-Encoding", "gzip")
	if auth != "" {
		req.Header.Set("Authorization", "Bearer "+auth)
	}
	switch {
	case j.Length > 0:
		req.Header.Set("Range", j.rangeSpec())
		req.Header.Set("Accept-Encoding", "identity")
	case p.resumable():
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", p.size))
		req.Header.Set("If-Range", p.etag)
		req.Header.Set("Accept-Encoding", "identity")
	case old != nil:
		if v := old.Header.Get("Etag"); v != "" {
			req.Header.Set("If-None-Match", v)
		} else if v := old.Header.Get("Last-Modified"); v != "" {
			req.Header.Set("If-Modified-Since", v)
		}
	}
	return req, nil
}

// token is the token that may be sent to a location, or "": the hub's own
// host only, and in clear text only to this machine.
func (c *Client) token(loc location) string {
	if loc.place.name != HF || !loc.home || c.cfg.HFToken == "" {
		return ""
	}
	u, err := url.Parse(loc.base)
	if err != nil || u.Scheme != "https" && !isLoopback(u.Hostname()) {
		return ""
	}
	return c.cfg.HFToken
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// explain turns an error of the transport into one of ours, and marks as
// dropped what another attempt can cure.
func (c *Client) explain(ctx context.Context, j *job, err error) error {
	if ctx.Err() != nil {
		var idle *idleError
		if errors.As(context.Cause(ctx), &idle) {
			return &dropped{&idle.TimeoutError}
		}
		return context.Cause(ctx)
	}
	var blocked *BlockedError
	if errors.As(err, &blocked) {
		return &BlockedError{URL: j.url, Reason: blocked.Reason}
	}
	var dns *net.DNSError
	var cert *x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	if errors.As(err, &dns) && dns.IsNotFound || errors.As(err, &cert) || errors.As(err, &name) || errors.As(err, &invalid) {
		return fmt.Errorf("get %s: %w", j.url, err)
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return &dropped{&TimeoutError{URL: j.url, What: "no answer came (" + err.Error() + ")", After: c.cfg.Timeouts.Header}}
	}
	return &dropped{err}
}
