package dataset

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/results/schema"
)

// ManifestSchema names the shape of manifest.json; a reader refuses any other.
const ManifestSchema = "repromill.manifest/v1"

// maxManifest bounds what is read of a manifest.
const maxManifest = 64 << 20

// Manifest lists everything that one committed run left, with hashes.
type Manifest struct {
	Schema      string       `json:"schema"`
	RunID       string       `json:"run_id"`
	PlanHash    string       `json:"plan_hash,omitempty"`
	Created     time.Time    `json:"created"`   // of the run; its UTC date is the partition
	Committed   time.Time    `json:"committed"` // of this manifest
	Tool        string       `json:"tool,omitempty"`
	Files       []File       `json:"files"`
	Attachments []Attachment `json:"attachments,omitempty"`
	// Checksum is the SHA-256 of the file without these 64 digits.
	Checksum string `json:"checksum"`
	// Problem is set by List, in place of everything but RunID, for a manifest
	// that cannot be read.
	Problem string `json:"problem,omitempty"`
}

// File is one Parquet file of a run.
type File struct {
	Table         string            `json:"table"`
	SchemaVersion string            `json:"schema_version"`
	Path          string            `json:"path"` // relative to the root, with slashes
	Partition     map[string]string `json:"partition"`
	Rows          int64             `json:"rows"`
	Bytes         int64             `json:"bytes"`
	SHA256        string            `json:"sha256"`
	RowGroups     []schema.Group    `json:"row_groups"`
	// Dropped counts rows that had the key of a row added before them, as
	// happens when an attempt is repeated.
	Dropped    int64 `json:"dropped_duplicates,omitempty"`
	NaNToNull  int64 `json:"nan_to_null,omitempty"`
	FixedTexts int64 `json:"fixed_texts,omitempty"` // texts that were not UTF-8
}

// Attachment is a file kept beside the manifest: plan, report, logs.
type Attachment struct {
	Name   string `json:"name"`
	Path   string `json:"path"` // relative to the root, with slashes
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Rows is the number of rows the run has in a table.
func (m *Manifest) Rows(table string) (n int64) {
	for _, f := range m.Files {
		if f.Table == table {
			n += f.Rows
		}
	}
	return n
}

// Bytes is the size of all of the run's files.
func (m *Manifest) Bytes() (n int64) {
	for _, f := range m.Files {
		n += f.Bytes
	}
	for _, a := range m.Attachments {
		n += a.Bytes
	}
	return n
}

// SameCommit reports whether another manifest is of the same commit, although
// the bytes of its files may differ, as they do after [Dataset.Extract].
func (m *Manifest) SameCommit(o *Manifest) bool {
	return m.RunID == o.RunID && m.PlanHash == o.PlanHash && m.Created.Equal(o.Created) && m.Committed.Equal(o.Committed) &&
		slices.EqualFunc(m.Files, o.Files, func(a, b File) bool {
			return a.Table == b.Table && a.Rows == b.Rows && maps.Equal(a.Partition, b.Partition)
		}) && slices.Equal(m.Attachments, o.Attachments)
}

// CorruptError says that a file of the dataset is damaged.
type CorruptError struct {
	Path   string
	Reason string
}

func (e *CorruptError) Error() string { return e.Path + " is damaged: " + e.Reason }

var checksumRE = regexp.MustCompile(`"checksum": "([0-9a-f]{64})?"`)

// checksum computes what a document's checksum must be, and returns the one it
// has. It works on the bytes, so that fields this program does not know count.
func checksum(doc []byte) (want, got string) {
	all := checksumRE.FindAllSubmatchIndex(doc, -1)
	if len(all) == 0 {
		return "", ""
	}
	at := all[len(all)-1]
	h := sha256.New()
	if at[2] >= 0 {
		got = string(doc[at[2]:at[3]])
		h.Write(doc[:at[2]])
		h.Write(doc[at[3]:])
	} else {
		h.Write(doc)
	}
	return hex.EncodeToString(h.Sum(nil)), got
}

// encode sets the checksum and renders the document.
func (m *Manifest) encode() ([]byte, error) {
	m.Checksum = ""
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	b, m.Checksum = seal(append(b, '\n'))
	return b, nil
}

// seal puts the checksum into a document that has an empty one.
func seal(b []byte) (doc []byte, sum string) {
	sum, _ = checksum(b)
	all := checksumRE.FindAllIndex(b, -1)
	at := all[len(all)-1]
	return slices.Concat(b[:at[0]], fmt.Appendf(nil, "%q: %q", "checksum", sum), b[at[1]:]), sum
}

// readManifest reads and checks a manifest or an intent.
func readManifest(name string) (*Manifest, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", name, err)
	}
	m, err := ParseManifest(b)
	if err != nil {
		return nil, &CorruptError{Path: name, Reason: err.Error()}
	}
	return m, nil
}

// ParseManifest decodes and checks a manifest from outside. What it returns
// names only paths that a run may own.
func ParseManifest(b []byte) (*Manifest, error) {
	if len(b) > maxManifest {
		return nil, fmt.Errorf("it is larger than %d bytes", maxManifest)
	}
	m := &Manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("it is not the JSON of a manifest: %w", err)
	}
	if m.Schema != ManifestSchema {
		return nil, fmt.Errorf("its schema is %q; this program reads %q", m.Schema, ManifestSchema)
	}
	if want, got := checksum(b); want == "" || want != got || got != m.Checksum {
		return nil, errors.New("its checksum does not match its content")
	}
	if err := checkRunID(m.RunID); err != nil {
		return nil, err
	}
	for _, f := range m.Files {
		if !f.ownedBy(m.RunID) {
			return nil, fmt.Errorf("it names %q, which is not a file of run %s", f.Path, m.RunID)
		}
	}
	for _, a := range m.Attachments {
		if !attachRE.MatchString(a.Name) || a.Path != path.Join(runsDir, m.RunID, a.Name) {
			return nil, fmt.Errorf("it names the attachment %q at %q", a.Name, a.Path)
		}
	}
	return m, nil
}

// ownedBy reports whether the path is the one that the run's file must have, so
// that no manifest can make repair touch anything else.
func (f *File) ownedBy(runID string) bool {
	if !schema.Known(f.Table) || !runIDRE.MatchString(f.SchemaVersion) || !dateRE.MatchString("date="+f.Partition["date"]) {
		return false
	}
	suite := f.Partition["suite"]
	if suite != "" && (partitionValue(suite) != suite || strings.Contains(suite, "..")) {
		return false
	}
	return f.Path == partPath(f.Table, f.SchemaVersion, f.Partition["date"], suite, runID)
}
