package intake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/gocolly/colly/v2"
	"golang.org/x/net/html"

	"github.com/repromill/repromill/planner/fetch"
)

// page is one HTML page as it was read.
type page struct {
	url    string
	hash   string // of the bytes as they came
	status int
}

func (p page) source() source { return source{url: p.url, hash: p.hash} }

// pageTransport stands between a collector and the client. It carries the
// context (colly does not give one to its request for robots.txt), takes the
// hash of the page, caps it, and lets an offline mirror have no robots.txt.
type pageTransport struct {
	next  http.RoundTripper
	ctx   context.Context
	limit int64
	page  page
	err   error // what colly would only pass on as text
}

func (t *pageTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.WithContext(t.ctx)
	robots := req.URL.Path == "/robots.txt"
	res, err := t.next.RoundTrip(req)
	if err != nil {
		// A mirror need not have a robots.txt, and an endpoint below a path of
		// the user's own host has none of arXiv's.
		var blocked *fetch.BlockedError
		if robots && (isMissingFromMirror(err) || errors.As(err, &blocked)) {
			return &http.Response{
				StatusCode: http.StatusNotFound, Status: "404 Not Found", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
				Header: http.Header{}, Body: http.NoBody, Request: req,
			}, nil
		}
		t.err = err
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, t.limit+1))
	if err == nil && int64(len(body)) > t.limit {
		err = &fetch.TooLargeError{URL: req.URL.String(), Limit: t.limit, Reason: fmt.Sprintf("the page is larger than %d bytes", t.limit)}
	}
	if err != nil {
		t.err = err
		return nil, err
	}
	if !robots {
		sum := sha256.Sum256(body)
		t.page = page{url: req.URL.String(), hash: hex.EncodeToString(sum[:]), status: res.StatusCode}
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, nil
}

// collect visits one page of arXiv with a collector and hands its root element
// to read. The collector stays on the host, asks robots.txt, sends no cookies
// and follows no link; waiting between requests is the client's.
//
// Errors: [*NotFoundError] for 404 and 410, [*ThrottledError] for 429 and 503,
// [*AnswerError] for what is no HTML page, and those of the client.
func (in *Intake) collect(ctx context.Context, path string, read func(p page, root *colly.HTMLElement)) error {
	u, err := in.client.URL(fetch.Arxiv, path, nil)
	if err != nil {
		return err
	}
	parsed, err := url.Parse(u)
	if err != nil {
		return fmt.Errorf("parse address of page: %w", err)
	}
	t := &pageTransport{next: in.client.Transport(), ctx: ctx, limit: in.cfg.MaxPage}
	// NewCollector would let environment variables change what is set here.
	c := &colly.Collector{}
	c.Init()
	c.Context = ctx
	c.UserAgent = in.cfg.UserAgent
	c.AllowedDomains = []string{parsed.Hostname()}
	c.IgnoreRobotsTxt = false
	c.MaxDepth = 1
	c.MaxBodySize = int(in.cfg.MaxPage) + 1
	c.DisableCookies()
	c.WithTransport(t)
	c.SetRequestTimeout(0) // the context and the client's own caps hold

	seen := false
	var contentType string
	c.OnResponse(func(r *colly.Response) { contentType = r.Headers.Get("Content-Type") })
	c.OnHTML("html", func(e *colly.HTMLElement) {
		if !seen {
			seen = true
			read(t.page, e)
		}
	})
	err = c.Visit(u)
	switch {
	case t.err != nil:
		return t.err
	case ctx.Err() != nil:
		return ctx.Err()
	case t.page.status == http.StatusNotFound, t.page.status == http.StatusGone:
		return &NotFoundError{What: "page " + u, URL: u, Fix: "check the id"}
	case t.page.status == http.StatusTooManyRequests, t.page.status == http.StatusServiceUnavailable:
		return &ThrottledError{URL: u, Reason: "status " + statusText(t.page.status)}
	case errors.Is(err, colly.ErrRobotsTxtBlocked):
		return &AnswerError{URL: u, Reason: "a robots.txt that forbids the page"}
	case t.page.status != 0 && t.page.status != http.StatusOK:
		return &AnswerError{URL: u, Reason: "status " + statusText(t.page.status), Transient: t.page.status >= 500}
	case err != nil:
		return fmt.Errorf("read page %s: %w", u, err)
	case !seen:
		return &AnswerError{URL: u, Reason: fmt.Sprintf("something that is no HTML page (%s)", shorten(cleanText(contentType), 60)), Transient: true}
	}
	return nil
}

// attr returns the value of an attribute, "" when there is none.
func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// hasClass reports whether one of the classes of an element is one of names.
func hasClass(n *html.Node, names ...string) bool {
	if n.Type != html.ElementNode {
		return false
	}
	for c := range strings.FieldsSeq(attr(n, "class")) {
		for _, name := range names {
			if c == name {
				return true
			}
		}
	}
	return false
}
