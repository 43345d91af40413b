// Package target reads the string a user pastes: a paper, a hub model, a git
// repository or a folder, and gives it one canonical form.
//
// Parsing is pure: no network, no file system, no clock. What is almost, but
// not quite, an identifier is refused with the reason; it is never taken for
// something else. So "1706.3762" is a mistyped arXiv id and not a model of
// that name, and a local folder is only what starts with "./", "../", "/",
// "~/" or "file:".
//
// A web address on a host that is not known can yield an arXiv id and nothing
// else: the canonical URL is always rebuilt from the identifier, so that an
// address found in the input is never dialled. The exception is a git
// repository on a host of its own, whose address is its identity; it has to be
// a plain https URL on the standard port with a public-looking host name.
package target

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/repromill/repromill/planner/spec"
)

// The kinds of target.
const (
	ArXiv      = "arxiv"      // ID "2604.08075" or "hep-th/9901001", Version "v2" when given
	HFModel    = "hf_model"   // ID "org/name" or "name", Revision and Path when given
	HFDataset  = "hf_dataset" // as HFModel
	HFSpace    = "hf_space"   // as HFModel
	Git        = "git"        // ID "host/owner/repo", Ref and Path (folder or file) when given
	Local      = "local"      // ID and Path are the cleaned path; "~/" is not expanded
	OpenReview = "openreview" // ID is the forum id
)

// Target is the parsed form. Its URL is always filled and canonical:
// Parse(t.URL) gives the same target again, apart from Input.
type Target = spec.Target

const maxInput = 2048 // bytes

const acceptedForms = "accepted are an arXiv id, DOI or URL (2604.08075v2, hep-th/9901001, https://arxiv.org/abs/2604.08075), " +
	"a hub model (org/name, org/name@revision, hf://org/name), " +
	"a git repository (https://github.com/owner/repo, …/tree/REF/folder), " +
	"an OpenReview forum (https://openreview.net/forum?id=ID) or a folder (./path)"

// Error says why a string was refused and what to write instead.
type Error struct {
	Input  string
	Reason string
	Fix    string // one concrete correction, or the accepted forms
}

func (e *Error) Error() string {
	return fmt.Sprintf("target %s: %s; %s", Quote(e.Input), e.Reason, e.Fix)
}

// UserError returns the fix. It marks the error as the user's to mend.
func (e *Error) UserError() string { return e.Fix }

// refusal is an Error without the input, which only Parse knows.
type refusal struct{ reason, fix string }

func (r *refusal) Error() string { return r.reason }

func refuse(format string, args ...any) error {
	return &refusal{reason: fmt.Sprintf(format, args...)}
}

func refuseFix(fix, format string, args ...any) error {
	return &refusal{reason: fmt.Sprintf(format, args...), fix: fix}
}

// Parse reads s. Every error is an [*Error].
func Parse(s string) (Target, error) {
	t, err := parse(s)
	if err != nil {
		return Target{}, asError(s, err)
	}
	t.Input = s
	return t, nil
}

func asError(input string, err error) *Error {
	e := &Error{Input: input, Reason: err.Error(), Fix: acceptedForms}
	if r, ok := err.(*refusal); ok && r.fix != "" {
		e.Fix = r.fix
	}
	return e
}

func parse(s string) (Target, error) {
	s, err := clean(s)
	if err != nil {
		return Target{}, err
	}
	if isLocal(s) {
		return parseLocal(s)
	}
	if err := plainASCII(s); err != nil {
		return Target{}, err
	}
	if rest, ok := cutPrefixFold(s, "arxiv:"); ok {
		return arxivTarget(strings.TrimSpace(rest))
	}
	if rest, ok := cutPrefixFold(s, "doi:"); ok {
		return parseDOI(strings.TrimSpace(rest))
	}
	if host, path, ok := cutSCP(s); ok {
		return parseURL("git+https://" + host + "/" + path)
	}
	if looksLikeHost(s) {
		return parseURL("https://" + s)
	}
	if schemeRE.MatchString(s) {
		return parseURL(s)
	}
	return parseBare(s)
}

// clean trims what surrounds a pasted string and refuses what no identifier
// can hold.
func clean(s string) (string, error) {
	switch {
	case len(s) > maxInput:
		return "", refuse("it has %d bytes, more than the %d any accepted form needs", len(s), maxInput)
	case !utf8.ValidString(s):
		return "", refuse("it is not valid UTF-8")
	}
	s = strings.TrimSpace(s)
	for _, pair := range []string{"<>", `""`, "''", "``", "<>"} {
		if len(s) >= 2 && s[0] == pair[0] && s[len(s)-1] == pair[1] {
			s = strings.TrimSpace(s[1 : len(s)-1])
		}
	}
	if s == "" {
		return "", refuse("it is empty")
	}
	for _, r := range s {
		if hidden(r) {
			return "", refuse("it contains the invisible character %U", r)
		}
	}
	return s, nil
}

// hidden reports control and formatting characters, which a terminal does not
// show as they are.
func hidden(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}

func plainASCII(s string) error {
	for _, r := range s {
		if r > unicode.MaxASCII {
			return refuse("it contains %q (%U), which is not ASCII and may look like another character", r, r)
		}
	}
	if strings.Contains(s, `\`) {
		return refuse("it contains a backslash")
	}
	return nil
}

// Quote renders a string from outside for a message: escaped, in quotation
// marks, and cut after 100 bytes.
func Quote(s string) string {
	const limit = 100
	if len(s) <= limit {
		return fmt.Sprintf("%+q", s)
	}
	return fmt.Sprintf("%+q…", strings.ToValidUTF8(s[:limit], ""))
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):], true
	}
	return s, false
}
