package fetch

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// retryStatus reports whether a status means "not now".
func retryStatus(status int, h http.Header) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	case http.StatusForbidden:
		// GitHub's way to say 429.
		return h.Get("X-Ratelimit-Remaining") == "0" || h.Get("Retry-After") != ""
	}
	return false
}

// askedWait is how long an answer asks us to leave the site alone, 0 if it
// does not: Retry-After (RFC 9110, 10.2.3), a used-up RateLimit (IETF draft
// ratelimit-headers-09, as the hub sends it: `"api";r=0;t=55`), or GitHub's
// X-RateLimit-Remaining and -Reset.
func askedWait(h http.Header, status int, now time.Time) time.Duration {
	var wait time.Duration
	if retryStatus(status, h) {
		wait = retryAfter(h, now)
	}
	if left, reset, ok := rateLimit(h); ok && left <= 0 {
		wait = max(wait, reset)
	}
	if h.Get("X-Ratelimit-Remaining") == "0" {
		if at, err := strconv.ParseInt(h.Get("X-Ratelimit-Reset"), 10, 64); err == nil {
			wait = max(wait, time.Unix(at, 0).Sub(now))
		}
	}
	return wait
}

// retryAfter reads the header's two forms: seconds, or an HTTP date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0
	}
	if secs, err := strconv.ParseInt(v, 10, 32); err == nil {
		return max(0, time.Duration(secs)*time.Second)
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// remaining is how many requests a site says are left, if it says so.
func remaining(h http.Header) (int, bool) {
	if left, _, ok := rateLimit(h); ok {
		return left, true
	}
	left, err := strconv.Atoi(h.Get("X-Ratelimit-Remaining"))
	return left, err == nil
}

// rateLimit reads r and t of the RateLimit header.
func rateLimit(h http.Header) (left int, reset time.Duration, ok bool) {
	// The first list member counts; a site has one quota per class.
	v, _, _ := strings.Cut(h.Get("RateLimit"), ",")
	for param := range strings.SplitSeq(v, ";") {
		key, val, _ := strings.Cut(strings.TrimSpace(param), "=")
		n, err := strconv.ParseInt(val, 10, 32)
		if err != nil || n < 0 {
			continue
		}
		switch key {
		case "r":
			left, ok = int(n), true
		case "t":
			reset = time.Duration(n) * time.Second
		}
	}
	return left, reset, ok
}

// keptHeaders are the response headers that mean something to a caller.
var keptHeaders = []string{
	"Content-Type", "Content-Language", "Content-Range", "Etag", "Last-Modified", "Link", "Retry-After",
	"X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size", "X-Error-Code", "X-Error-Message",
	"RateLimit", "RateLimit-Policy", "X-Ratelimit-Remaining", "X-Ratelimit-Reset",
}

// hopHeaders are taken over from a redirect: the hub states the commit, size
// and hash of a file there, and the content network does not repeat them.
var hopHeaders = []string{"X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size"}

func keep(h http.Header) http.Header {
	out := http.Header{}
	for _, k := range keptHeaders {
		k = http.CanonicalHeaderKey(k)
		if v := h[k]; len(v) > 0 {
			out[k] = append([]string(nil), v...)
		}
	}
	return out
}
