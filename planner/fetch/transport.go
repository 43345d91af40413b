package fetch

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
)

// Transport gives other HTTP clients, such as a colly collector, the same way
// to the outside: guard, mirror, cache, limiter and caps. It follows redirects
// itself, so that each is checked, and the response's Request holds the final
// URL. Only GET is sent, and of the request's headers only Accept is used.
//
// A status is no error here; what [Client.Get] returns as another kind of
// error, RoundTrip does too.
func (c *Client) Transport() http.RoundTripper { return transport{c} }

type transport struct{ c *Client }

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_ = req.Body.Close() // the contract of RoundTripper; nothing is read from it
	}
	if req.Method != "" && req.Method != http.MethodGet {
		return nil, &BlockedError{URL: clip(req.URL.Redacted()), Reason: "only GET is sent, not " + clip(req.Method)}
	}
	res, err := t.c.do(req.Context(), Request{URL: req.URL.String(), Accept: req.Header.Get("Accept")})
	var status *StatusError
	if errors.As(err, &status) {
		res, err = &Response{FinalURL: status.URL, Status: status.Status, Header: status.Header, Body: []byte(status.Excerpt)}, nil
	}
	if err != nil {
		return nil, err
	}
	final, err := url.Parse(res.FinalURL)
	if err != nil {
		return nil, err
	}
	answered := req.Clone(req.Context())
	answered.URL, answered.Host, answered.Body = final, "", nil
	header := http.Header{}
	maps.Copy(header, res.Header)
	header.Set("Content-Length", strconv.Itoa(len(res.Body)))
	return &http.Response{
		Status:     strconv.Itoa(res.Status) + " " + http.StatusText(res.Status),
		StatusCode: res.Status,
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        header,
		Body:          io.NopCloser(bytes.NewReader(res.Body)),
		ContentLength: int64(len(res.Body)),
		Request:       answered,
	}, nil
}
