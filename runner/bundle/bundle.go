// Package bundle packs a run into one archive that shows what was done, on what,
// and what came of it, and reads such archives from strangers.
//
// A bundle is a ZIP file, which every system opens without this program:
//
//	bundle.json         this manifest: every other member with its size and SHA-256
//	README.txt          what the members are, and how to repeat the run
//	plan.json           the plan document; its hash covers what was executed
//	request.json        how the run was asked for: executor, image, caps
//	outcome.json        verdicts, numbers, what was refused, what deviated
//	report.json .md .html
//	digests.json        source commit, image, data sets, bound files, servers
//	lock.txt            the packages that were installed, one a line
//	patches/RUN.patch   recorded changes of the source
//	logs/…              the ends of the captured outputs
//	rows/TABLE/VERSION/date=…/part-….parquet
//	results.json        the manifest of those rows
//
// The same run gives the same bytes. What looks like a secret is taken out of
// every member, Parquet included, and counted.
package bundle

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// SchemaV1 names the shape of bundle.json.
const SchemaV1 = "repromill.bundle/v1"

// Members of a bundle that are read by name.
const (
	ManifestName = "bundle.json"
	planName     = "plan.json"
	requestName  = "request.json"
	outcomeName  = "outcome.json"
	digestsName  = "digests.json"
	lockName     = "lock.txt"
	resultsName  = "results.json"
	rowsDir      = "rows/"
)

// The bounds of what is written and read.
const (
	maxParts     = 20_000
	maxManifest  = 8 << 20
	maxDocument  = 64 << 20  // of a member that is no Parquet
	maxDocuments = 512 << 20 // of all of them
	maxRows      = 64 << 30  // of all Parquet
)

// Manifest is bundle.json.
type Manifest struct {
	Schema   string    `json:"schema"`
	RunID    string    `json:"run_id"`
	PlanHash string    `json:"plan_hash,omitempty"`
	Title    string    `json:"title,omitempty"`
	Verdict  string    `json:"verdict,omitempty"`
	Created  time.Time `json:"created"` // of the run
	Tool     string    `json:"tool,omitempty"`
	Redacted int       `json:"redacted"` // texts taken out of all members
	Parts    []Part    `json:"parts"`    // sorted by path
	// LeftOut are files of the run that could not be looked through for secrets.
	LeftOut []string `json:"left_out,omitempty"`
}

// Part is one member.
type Part struct {
	Path     string `json:"path"`
	About    string `json:"about,omitempty"`
	Table    string `json:"table,omitempty"` // of Parquet
	Rows     int64  `json:"rows,omitempty"`
	Bytes    int64  `json:"bytes"`
	SHA256   string `json:"sha256"`
	Redacted int    `json:"redacted,omitempty"`
}

// Bytes is the size of all parts.
func (m *Manifest) Bytes() (n int64) {
	for _, p := range m.Parts {
		n += p.Bytes
	}
	return n
}

// Part returns the part of that path, nil if there is none.
func (m *Manifest) Part(path string) *Part {
	for i := range m.Parts {
		if m.Parts[i].Path == path {
			return &m.Parts[i]
		}
	}
	return nil
}

// UserError is something that the user has to change, with the fix.
type UserError struct{ Msg, Fix string }

func (e *UserError) Error() string { return e.Msg }

// UserError returns the fix.
func (e *UserError) UserError() string { return e.Fix }

func userErrorf(fix, format string, args ...any) error {
	return &UserError{fmt.Sprintf(format, args...), fix}
}

// partRE allows the names that this package writes. Nothing it matches leaves a
// folder, hides, or means something else on another system.
var (
	partRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._=+-]*(/[A-Za-z0-9][A-Za-z0-9._=+-]*){0,7}$`)
	sumRE  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	// Names that mean devices on Windows, with any extension.
	deviceRE = regexp.MustCompile(`(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$`)
)

func checkPath(path string) error {
	if len(path) > 1000 || !partRE.MatchString(path) {
		return fmt.Errorf("it names a member %.80q, which no bundle holds", path)
	}
	for elem := range strings.SplitSeq(path, "/") {
		if len(elem) > 200 || strings.HasSuffix(elem, ".") || deviceRE.MatchString(elem) {
			return fmt.Errorf("it names a member %.80q, which no bundle holds", path)
		}
	}
	return nil
}

func isRows(path string) bool {
	return strings.HasPrefix(path, rowsDir) && strings.HasSuffix(path, ".parquet")
}

// check holds a manifest from outside to what this package writes.
func (m *Manifest) check() error {
	if len(m.Parts) == 0 || len(m.Parts) > maxParts {
		return fmt.Errorf("it lists %d members", len(m.Parts))
	}
	var documents, rows int64
	seen := map[string]bool{strings.ToLower(ManifestName): true}
	for _, p := range m.Parts {
		if err := checkPath(p.Path); err != nil {
			return err
		}
		// Two names that differ in case alone are one file on many systems.
		if low := strings.ToLower(p.Path); seen[low] {
			return fmt.Errorf("it lists %q twice", p.Path)
		} else {
			seen[low] = true
		}
		if p.Bytes < 0 || !sumRE.MatchString(p.SHA256) {
			return fmt.Errorf("it states no size and SHA-256 of %q", p.Path)
		}
		switch {
		case isRows(p.Path):
			if rows += p.Bytes; p.Bytes > maxRows || rows > maxRows {
				return fmt.Errorf("its rows have more than %d bytes", int64(maxRows))
			}
		default:
			if documents += p.Bytes; p.Bytes > maxDocument || documents > maxDocuments {
				return fmt.Errorf("%q makes its documents larger than they may be", p.Path)
			}
		}
	}
	return nil
}
