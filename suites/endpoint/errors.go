package endpoint

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind is what went wrong with a request.
type Kind string

// The kinds of failure.
const (
	Unreachable Kind = "unreachable" // no connection, or the server is down: 5xx
	Throttled   Kind = "throttled"   // 429
	Stalled     Kind = "stalled"     // silence beyond a timeout
	Cut         Kind = "cut"         // the answer ended before its end
	Malformed   Kind = "malformed"   // not what the protocol says: HTML, broken JSON or events
	Rejected    Kind = "rejected"    // this request cannot be served: 400, 413, 422
	Denied      Kind = "denied"      // 401, 403
	Unknown     Kind = "unknown"     // 404: no such model, or no such endpoint
)

// Error is a request that failed for good.
type Error struct {
	Kind       Kind
	Status     int    // of HTTP, 0 if there was none
	Detail     string // what the server or the connection said, at most 300 bytes
	RetryAfter time.Duration
	Retries    int
	URL        string
}

func (e *Error) Error() string {
	s := "endpoint " + e.URL + ": " + string(e.Kind)
	if e.Status != 0 {
		s += fmt.Sprintf(" (HTTP %d)", e.Status)
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Retries > 0 {
		s += fmt.Sprintf(", after %d retries", e.Retries)
	}
	return s
}

// Down reports whether the failure says that the server is not there, rather than
// something about the request.
func (e *Error) Down() bool { return e.Kind == Unreachable || e.Kind == Throttled }

// Fatal reports whether every request will fail alike.
func (e *Error) Fatal() bool { return e.Kind == Denied || e.Kind == Unknown }

// UserError returns the fix where the user has one.
func (e *Error) UserError() string {
	switch e.Kind {
	case Denied:
		return "set OPENAI_API_KEY (or REPROMILL_API_KEY_<NAME>) to a key of this endpoint"
	case Unknown:
		return "check the endpoint's address and the model's name with: curl " + e.URL + "/models"
	case Throttled:
		return "raise the endpoint's limit, or take the run up again later"
	case Rejected:
		return "see what the server says above; the prompt may not fit the model's context"
	}
	return "check that the server runs and can be reached, then take the run up again"
}

// retryable reports whether the same request may succeed later.
func (e *Error) retryable() bool {
	switch e.Kind {
	case Unreachable, Throttled, Stalled, Cut, Malformed:
		return true
	}
	return false
}

// statusKind sorts an HTTP status.
func statusKind(status int) Kind {
	switch {
	case status == 429:
		return Throttled
	case status == 401 || status == 403:
		return Denied
	case status == 404 || status == 405:
		return Unknown
	case status == 408 || status == 425 || status >= 500:
		return Unreachable
	case status >= 300 && status < 400:
		return Unknown
	}
	return Rejected
}

// clipped is the beginning of a text on one line.
func clipped(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "\ufffd")), " ")
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}

// broken says why a connection failed.
func (c *Client) broken(ctx context.Context, kind Kind, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	if cause := context.Cause(ctx); cause != nil {
		var stall *stallError
		if !errors.As(cause, &stall) {
			return cause // the caller gave up
		}
		kind, err = Stalled, stall
	}
	return &Error{Kind: kind, Detail: clipped(redact(err.Error(), c.c.Key)), URL: c.base}
}

// stallError is a timeout of ours.
type stallError struct {
	what  string
	after time.Duration
}

func (e *stallError) Error() string { return fmt.Sprintf("%s for %v", e.what, e.after) }
