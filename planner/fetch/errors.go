package fetch

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// ErrTransient may be wrapped by the error of a [Request.Check] to say that the
// same request can succeed later; it is then retried like a 503.
var ErrTransient = errors.New("transient answer")

// StatusError is an answer with a status other than success.
type StatusError struct {
	URL    string
	Status int
	// Header holds the kept headers of the answer, for example the hub's
	// X-Error-Code ("GatedRepo", "RepoNotFound", …).
	Header http.Header
	// Excerpt is the beginning of the body, at most 512 bytes, as it came.
	Excerpt string
	// RetryAfter is how long the site asked to be left alone, 0 if it did not.
	RetryAfter time.Duration
}

func (e *StatusError) Error() string {
	msg := fmt.Sprintf("get %s: %d %s", e.URL, e.Status, http.StatusText(e.Status))
	if said := e.Header.Get("X-Error-Message"); said != "" {
		msg += ": " + clip(said)
	}
	if e.RetryAfter > 0 {
		msg += fmt.Sprintf(" (asked to wait %s)", e.RetryAfter.Round(time.Second))
	}
	return msg
}

// BlockedError is a request that the guard refused. Nothing was sent, or, for
// a redirect, nothing was sent to the place it pointed to.
type BlockedError struct {
	URL    string
	Reason string
}

func (e *BlockedError) Error() string { return fmt.Sprintf("refuse %s: %s", e.URL, e.Reason) }

// UserError says what a user can do about it.
func (e *BlockedError) UserError() string {
	return "use a link on a known site (arxiv.org, huggingface.co, github.com, …), or an endpoint set in the configuration"
}

// TooLargeError is a body that passed a cap.
type TooLargeError struct {
	URL string
	// Limit is the cap in decompressed bytes.
	Limit  int64
	Reason string
}

func (e *TooLargeError) Error() string { return fmt.Sprintf("get %s: %s", e.URL, e.Reason) }

// TimeoutError is an answer that did not come, or did not end, in time.
type TimeoutError struct {
	URL   string
	What  string
	After time.Duration
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("get %s: %s within %s", e.URL, e.What, e.After)
}

// Timeout makes the error recognisable as one of time.
func (e *TimeoutError) Timeout() bool { return true }

// NotInMirrorError is a URL that the offline mirror does not hold.
type NotInMirrorError struct {
	URL    string
	Mirror string
	// File is the path below Mirror that would hold the answer.
	File string
}

func (e *NotInMirrorError) Error() string {
	return fmt.Sprintf("%s is not in the mirror %s: the file %s is missing; %s", e.URL, e.Mirror, e.File, e.UserError())
}

// UserError says what a user can do about it.
func (e *NotInMirrorError) UserError() string {
	return "run `repromill mirror add TARGET` where the network is allowed, or drop --mirror"
}

// configError is a mistake in the configuration.
type configError struct{ msg, fix string }

func (e *configError) Error() string     { return e.msg + "; " + e.fix }
func (e *configError) UserError() string { return e.fix }
