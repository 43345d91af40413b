package git

import (
	"errors"
	"fmt"
	"strings"
)

// RepoError says that a repository cannot be used as it was given: its address
// is refused, it does not exist, or it needs a token. Fix is what to do.
type RepoError struct {
	Repo string `json:"repo"`
	Why  string `json:"why"`
	Fix  string `json:"fix"`
	// Gone says that the address was good and the server answered that there
	// is nothing for us.
	Gone bool `json:"gone,omitempty"`
}

func (e *RepoError) Error() string {
	return fmt.Sprintf("repository %q: %s; %s", e.Repo, e.Why, e.Fix)
}

// UserError returns the fix.
func (e *RepoError) UserError() string { return e.Fix }

// RefError says that a branch, tag or commit was not found in a repository
// that was.
type RefError struct {
	Repo string   `json:"repo"`
	Ref  string   `json:"ref"`
	Why  string   `json:"why"`
	Have []string `json:"have,omitempty"` // some names that do exist
}

func (e *RefError) Error() string {
	return fmt.Sprintf("ref %q of %s: %s; %s", e.Ref, e.Repo, e.Why, e.UserError())
}

// UserError returns the names to choose from.
func (e *RefError) UserError() string {
	if len(e.Have) == 0 {
		return "give a branch, a tag or a commit id of 40 hex digits"
	}
	return "give a commit id of 40 hex digits or one of: " + strings.Join(e.Have, ", ")
}

// NotInMirrorError says that an offline mirror does not hold a repository.
type NotInMirrorError struct {
	Repo   string
	Mirror string
	Looked []string // folders, relative to the mirror
}

func (e *NotInMirrorError) Error() string {
	return fmt.Sprintf("%s is not in the mirror %s (looked for %s); %s",
		e.Repo, e.Mirror, strings.Join(e.Looked, ", "), e.UserError())
}

// UserError returns how to fill the mirror.
func (e *NotInMirrorError) UserError() string {
	return fmt.Sprintf("add it with \"mirror add %s\" on a machine with a network, or run without the mirror", e.Repo)
}

// damagedError is a pack that does not hold what was asked for: truncated,
// malformed or incomplete. Asking again may help.
type damagedError struct{ err error }

func (e *damagedError) Error() string { return "damaged pack: " + e.err.Error() }
func (e *damagedError) Unwrap() error { return e.err }

// missingCommitError is a sound pack without the commit that was wanted.
type missingCommitError struct{ commit string }

func (e *missingCommitError) Error() string { return "pack has no commit " + e.commit }

// wireError is an error on its way from the child to the parent.
type wireError struct {
	Limit   *LimitError `json:"limit,omitempty"`
	Repo    *RepoError  `json:"repo,omitempty"`
	Ref     *RefError   `json:"ref,omitempty"`
	Damaged string      `json:"damaged,omitempty"`
	Missing string      `json:"missing,omitempty"`
	Other   string      `json:"other,omitempty"`
}

func toWire(err error) *wireError {
	var (
		w       wireError
		damaged *damagedError
		missing *missingCommitError
	)
	switch {
	case errors.As(err, &w.Limit), errors.As(err, &w.Repo), errors.As(err, &w.Ref):
	case errors.As(err, &damaged):
		w.Damaged = damaged.err.Error()
	case errors.As(err, &missing):
		w.Missing = missing.commit
	default:
		w.Other = err.Error()
	}
	return &w
}

func (w *wireError) err() error {
	switch {
	case w.Limit != nil:
		return w.Limit
	case w.Repo != nil:
		return w.Repo
	case w.Ref != nil:
		return w.Ref
	case w.Damaged != "":
		return &damagedError{errors.New(w.Damaged)}
	case w.Missing != "":
		return &missingCommitError{w.Missing}
	}
	return errors.New(w.Other)
}
