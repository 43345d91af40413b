package intake

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/repromill/repromill/planner/fetch"
)

// NotFoundError says that the source answered and has no such thing.
type NotFoundError struct {
	What string // "paper 2604.99999", "model org/name", "revision v9 of model org/name"
	URL  string
	Fix  string
}

func (e *NotFoundError) Error() string { return fmt.Sprintf("there is no %s; %s", e.What, e.Fix) }

// UserError returns the fix.
func (e *NotFoundError) UserError() string { return e.Fix }

// AccessError says that a thing on the hub may not be read by this user. The
// hub does not tell a private repository from one that does not exist: then
// State is "not_found_or_private".
type AccessError struct {
	ID     string
	State  string // gated|not_found_or_private|forbidden|disabled
	Status int    // of the answer
	Detail string // the hub's own words
	Fix    string
}

func (e *AccessError) Error() string {
	s := fmt.Sprintf("the hub does not show %s (%s, status %d", e.ID, e.State, e.Status)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s + "); " + e.Fix
}

// UserError returns the fix.
func (e *AccessError) UserError() string { return e.Fix }

// ThrottledError says that a site refuses for now, after all retries.
type ThrottledError struct {
	URL    string
	Reason string        // the site's own words, or its status
	After  time.Duration // how long it asked to wait, 0 when it did not say
}

func (e *ThrottledError) Error() string {
	s := fmt.Sprintf("%s refuses for now: %s", e.URL, e.Reason)
	if e.After > 0 {
		s += fmt.Sprintf("; it asked to wait %s", e.After)
	}
	return s
}

// Unwrap makes the error transient for the client.
func (e *ThrottledError) Unwrap() error { return fetch.ErrTransient }

// AnswerError is an answer that is not what the source promises: a page in
// place of a feed, a feed that reports an error, truncated JSON.
type AnswerError struct {
	URL       string
	Reason    string
	Excerpt   string // the beginning of the answer, cleaned
	Transient bool   // a proxy's or an overloaded server's page: worth another try
}

func (e *AnswerError) Error() string {
	s := fmt.Sprintf("%s answered with %s", e.URL, e.Reason)
	if e.Excerpt != "" {
		s += fmt.Sprintf(": %q", e.Excerpt)
	}
	return s
}

// Unwrap makes a transient error recognisable to the client.
func (e *AnswerError) Unwrap() error {
	if e.Transient {
		return fetch.ErrTransient
	}
	return nil
}

func isNotFound(err error) bool {
	var e *NotFoundError
	return errors.As(err, &e)
}

func isMissingFromMirror(err error) bool {
	var e *fetch.NotInMirrorError
	return errors.As(err, &e)
}

// statusOf returns the status of an answer that the client made an error, 0
// for other errors.
func statusOf(err error) int {
	var e *fetch.StatusError
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// throttled turns the client's 429 and 503 into a [*ThrottledError] and leaves
// other errors as they are.
func throttled(err error) error {
	var e *fetch.StatusError
	if errors.As(err, &e) && (e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable) {
		return &ThrottledError{URL: e.URL, Reason: fmt.Sprintf("status %d %s", e.Status, shorten(cleanText(e.Excerpt), 100)), After: e.RetryAfter}
	}
	return err
}
