package bundle

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/report"
	"github.com/repromill/repromill/runner"
)

// Source is where a bundle is made from.
type Source struct {
	Data  *dataset.Dataset
	RunID string // of a committed run
	// Request is how the run was asked for; nil where only its results are left.
	Request *runner.Request
	Redact  *Redactor // nil knows the forms of tokens only
	Tool    string    // this program and its version
	Temp    string    // folder for rows that are written anew; empty is the system's
}

// writer collects the parts of one bundle.
type writer struct {
	src      Source
	manifest Manifest
	from     *dataset.Manifest
	bodies   map[string][]byte // documents by path
	files    map[string]string // Parquet by path: the file it is read from
	anew     bool              // rows were written without secrets
	temp     string
}

// Write packs a committed run. Everything is looked through and hashed before the
// first byte is written, so that w may be a slow line. The error is
// [fs.ErrNotExist] for a run without results.
func Write(ctx context.Context, w io.Writer, src Source) (*Manifest, error) {
	if src.Redact == nil {
		src.Redact = &Redactor{}
	}
	b := &writer{src: src, bodies: map[string][]byte{}, files: map[string]string{}}
	var err error
	if b.from, err = src.Data.Manifest(src.RunID); err != nil {
		return nil, err
	}
	if b.temp, err = os.MkdirTemp(src.Temp, "repromill-bundle-"); err != nil {
		return nil, fmt.Errorf("write bundle: %w", err)
	}
	defer os.RemoveAll(b.temp)
	if err := b.unmerge(ctx); err != nil {
		return nil, err
	}
	b.manifest = Manifest{Schema: SchemaV1, RunID: b.from.RunID, PlanHash: b.from.PlanHash, Created: b.from.Created, Tool: src.Tool}
	if err := errors.Join(b.documents(), b.rows(ctx)); err != nil {
		return nil, fmt.Errorf("bundle run %s: %w", src.RunID, err)
	}
	slices.SortFunc(b.manifest.Parts, func(x, y Part) int { return cmp.Compare(x.Path, y.Path) })
	if err := b.manifest.check(); err != nil {
		return nil, fmt.Errorf("bundle run %s: %w", src.RunID, err)
	}
	if err := b.write(ctx, w); err != nil {
		return nil, fmt.Errorf("bundle run %s: %w", src.RunID, err)
	}
	return &b.manifest, nil
}

// unmerge makes files of the run's own where a compaction has merged its rows with
// those of others.
func (b *writer) unmerge(ctx context.Context) (err error) {
	merged := slices.ContainsFunc(b.from.Files, func(f dataset.File) bool {
		_, err := os.Stat(filepath.Join(b.src.Data.Root(), filepath.FromSlash(f.Path)))
		return errors.Is(err, fs.ErrNotExist)
	})
	if !merged {
		return nil
	}
	if b.src.Data, err = b.src.Data.Extract(ctx, b.src.RunID, filepath.Join(b.temp, "results")); err != nil {
		return err
	}
	b.from, err = b.src.Data.Manifest(b.src.RunID)
	return err
}

// document adds a text, without secrets.
func (b *writer) document(path, about string, body []byte) {
	text, n := b.src.Redact.Text(string(body))
	b.bodies[path] = []byte(text)
	sum := sha256.Sum256([]byte(text))
	b.manifest.Parts = append(b.manifest.Parts, Part{Path: path, About: about, Bytes: int64(len(text)), SHA256: hex.EncodeToString(sum[:]), Redacted: n})
	b.manifest.Redacted += n
}

func (b *writer) json(path, about string, v any) error {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	b.document(path, about, append(body, '\n'))
	return nil
}

var about = map[string]string{
	planName: "the plan document", outcomeName: "verdicts and numbers as the runner has them",
	"report.json": "the report, for programs", "report.md": "the report, for pull requests", "report.html": "the report, for browsers",
}

// documents adds what stands beside the rows, and what follows from it.
func (b *writer) documents() error {
	var plan *spec.Plan
	var out *runner.Outcome
	for _, a := range b.from.Attachments {
		body, err := b.src.Data.Attachment(b.src.RunID, a.Name)
		if err != nil {
			return err
		}
		switch a.Name {
		case planName:
			plan = &spec.Plan{}
			err = json.Unmarshal(body, plan)
		case outcomeName:
			out = &runner.Outcome{}
			err = json.Unmarshal(body, out)
		case "report.json":
			err = b.report(body)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", a.Name, err)
		}
		b.document(a.Name, about[a.Name], body)
	}
	if req := b.src.Request; req != nil {
		c := *req
		c.Plan, c.Key, c.Lock = nil, "", "" // which have places of their own, or mean nothing elsewhere
		if err := b.json(requestName, "how the run was asked for", c); err != nil {
			return err
		}
	}
	if plan != nil && out != nil {
		if err := b.json(digestsName, "what the run was made of, by content", DigestsOf(plan, out)); err != nil {
			return err
		}
		if lock := out.Packages(); lock != "" {
			b.document(lockName, "the packages that were installed", []byte(lock))
		}
		for i, r := range plan.Runs {
			if text := patches(r); text != "" && r.Selected {
				b.document(fmt.Sprintf("patches/%02d-%s.patch", i+1, safeName(r.ID)), "recorded changes for the run "+r.ID, []byte(text))
			}
		}
	}
	return nil
}

func (b *writer) report(body []byte) error {
	rep, err := report.Parse(body)
	if err != nil {
		return err
	}
	b.manifest.Verdict = rep.Verdict
	switch {
	case rep.Paper != nil:
		b.manifest.Title = rep.Paper.Title
	case rep.Model != nil:
		b.manifest.Title = rep.Model.ID
	}
	b.manifest.Title, _ = b.src.Redact.Text(b.manifest.Title)
	var page bytes.Buffer
	if err := rep.HTML(&page); err != nil {
		return err
	}
	b.document("report.html", about["report.html"], page.Bytes())
	return nil
}

// rows adds the Parquet files: as they are where they hold no secret.
func (b *writer) rows(ctx context.Context) error {
	for _, f := range b.from.Files {
		if err := b.table(ctx, f); err != nil {
			return fmt.Errorf("look through %s: %w", f.Path, err)
		}
	}
	if !b.anew && len(b.manifest.LeftOut) == 0 {
		return b.json(resultsName, "the manifest of the rows, as the results folder has it", b.from)
	}
	return nil
}

func (b *writer) table(ctx context.Context, df dataset.File) error {
	t, known := tables[df.Table]
	name := filepath.Join(b.src.Data.Root(), filepath.FromSlash(df.Path))
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if sum, size, err := sumOf(f); err != nil {
		return err
	} else if sum != df.SHA256 || size != df.Bytes {
		return userErrorf("`repromill results verify` says what is damaged", "%s is damaged: its content does not match its manifest", name)
	}
	part := Part{Path: rowsDir + df.Path, Table: df.Table, Rows: df.Rows, Bytes: df.Bytes, SHA256: df.SHA256}
	n := 0
	if known {
		n, err = t.redact(ctx, f, b.src.Redact, nil)
	}
	if !known || err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		b.manifest.LeftOut = append(b.manifest.LeftOut, df.Path)
		return nil
	}
	if n > 0 {
		if name, err = b.rewrite(ctx, t, f, &part); err != nil {
			return err
		}
		b.anew = true
		b.manifest.Redacted += n
		part.Redacted = n
	}
	b.files[part.Path] = name
	b.manifest.Parts = append(b.manifest.Parts, part)
	return nil
}

func (b *writer) rewrite(ctx context.Context, t table, f *os.File, part *Part) (name string, err error) {
	out, err := os.CreateTemp(b.temp, "rows-*")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := t.redact(ctx, f, b.src.Redact, out); err != nil {
		return "", err
	}
	part.SHA256, part.Bytes, err = sumOf(out)
	return out.Name(), err
}

func sumOf(f *os.File) (sum string, size int64, err error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", 0, err
	}
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		return "", 0, err
	}
	_, err = f.Seek(0, io.SeekStart)
	return hex.EncodeToString(h.Sum(nil)), size, err
}

// write lays the archive out: the manifest first, then its parts in order.
func (b *writer) write(ctx context.Context, w io.Writer) error {
	b.document("README.txt", "what this is", []byte(b.readme()))
	slices.SortFunc(b.manifest.Parts, func(x, y Part) int { return cmp.Compare(x.Path, y.Path) })
	doc, err := json.MarshalIndent(&b.manifest, "", "  ")
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	if len(doc) > maxManifest {
		return userErrorf("share the results folder instead", "the run has too many files for a bundle")
	}
	z := zip.NewWriter(w)
	if err := b.member(z, ManifestName, bytes.NewReader(append(doc, '\n')), nil); err != nil {
		return err
	}
	for i := range b.manifest.Parts {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := &b.manifest.Parts[i]
		if name, ok := b.files[p.Path]; ok {
			f, err := os.Open(name)
			if err == nil {
				err = errors.Join(b.member(z, p.Path, f, p), f.Close())
			}
			if err != nil {
				return err
			}
		} else if err := b.member(z, p.Path, bytes.NewReader(b.bodies[p.Path]), nil); err != nil {
			return err
		}
	}
	return z.Close()
}

// member writes one member; with p its content must be the one stated there.
// Parquet is compressed already.
func (b *writer) member(z *zip.Writer, path string, r io.Reader, p *Part) error {
	h := &zip.FileHeader{Name: path, Method: zip.Deflate, Modified: b.manifest.Created.UTC().Truncate(2 * time.Second)}
	h.SetMode(fs.FileMode(0o644))
	if p != nil {
		h.Method = zip.Store
	}
	w, err := z.CreateHeader(h)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, sum), r); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if p != nil && hex.EncodeToString(sum.Sum(nil)) != p.SHA256 {
		return fmt.Errorf("write %s: the file changed while it was read", path)
	}
	return nil
}

func (b *writer) readme() string {
	var t strings.Builder
	m := &b.manifest
	fmt.Fprintf(&t, "Run %s", m.RunID)
	if m.Title != "" {
		fmt.Fprintf(&t, ": %s", oneLine(m.Title))
	}
	if m.Verdict != "" {
		fmt.Fprintf(&t, "\nVerdict: %s", strings.ReplaceAll(m.Verdict, "_", " "))
	}
	t.WriteString("\n\nEverything that one run of repromill left, with nothing that needs repromill to be read:\nreport.html in a browser, plan.json and digests.json for what was run, logs/ for what it said,\nrows/ as Parquet:\n\n")
	fmt.Fprintf(&t, "  duckdb -c \"SELECT * FROM read_parquet('rows/metrics/*/**/*.parquet', hive_partitioning=true)\"\n\n")
	fmt.Fprintf(&t, "bundle.json lists every member with its SHA-256. To check them, and to repeat the run:\n\n  repromill bundle verify FILE\n  repromill rerun FILE\n")
	if m.Redacted > 0 {
		fmt.Fprintf(&t, "\n%d texts that looked like secrets were taken out and read %q.\n", m.Redacted, redacted)
	}
	if len(m.LeftOut) > 0 {
		fmt.Fprintf(&t, "\nLeft out, since this version cannot look through them for secrets:\n")
		for _, f := range m.LeftOut {
			fmt.Fprintf(&t, "  %s\n", f)
		}
	}
	return t.String()
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
