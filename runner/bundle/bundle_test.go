package bundle_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/report"
	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/bundle"
	"github.com/repromill/repromill/runner/verdict"
)

const token = "hf_abcdefghijklmnopqrstuvwxyzABCDEF"

var created = time.Date(2026, 11, 20, 9, 30, 1, 5, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func plan(command string) *spec.Plan {
	v := 0.85
	p := &spec.Plan{
		Target: spec.Target{Input: "x", Kind: "git", ID: "x"},
		Source: spec.Source{Repo: "https://example.org/x", Commit: strings.Repeat("a", 40)},
		Claims: []spec.Claim{{ID: "c", Text: "0.85", Metric: "acc", Value: &v, Checkable: "numeric"}},
		Runs: []spec.Run{{ID: "ma/in", Kind: "full", Route: "recompute", ClaimIDs: []string{"c"}, Command: command, Argv: strings.Fields(command), Cwd: ".", Status: "auto", Selected: true,
			Patches: []spec.Patch{{Kind: "source", File: "a.py", Line: 3, Before: "n = 100", After: "n = 1", Reason: "smaller"}, {Kind: "flag", Before: "--epochs 90", After: "--epochs 1", Reason: "shorter"}},
			Collect: []spec.Collect{{Metric: "acc", Kind: "json", Path: "out.json", Pointer: "/acc"}}}},
	}
	p.Seal()
	return p
}

// committed is a results folder with one run; secret stands in its log and rows.
func committed(t testing.TB, p *spec.Plan, secret string) *dataset.Dataset {
	t.Helper()
	d, err := dataset.Open(t.TempDir(), dataset.Config{Now: func() time.Time { return created.Add(time.Hour) }})
	must(t, err)
	common := func(kind string) schema.Common {
		return schema.Common{RunID: "R1", PlanHash: p.Hash, Kind: kind, SchemaVersion: schema.Version}
	}
	tx := d.Begin("R1", created)
	tx.SetPlanHash(p.Hash)
	must(t, dataset.Add(tx, schema.RunRow{Common: common(schema.Measured), Status: "succeeded", CreatedAt: created}))
	must(t, dataset.Add(tx, schema.EventRow{Common: common(schema.Measured), Seq: 1, Time: created, Event: "log", Data: `{"text":"login ` + secret + `"}`}))
	must(t, dataset.Add(tx, schema.SampleRow{Common: common(schema.Measured), Suite: "aime", DatasetSHA: "d", ItemID: "1", Arm: "m", Outcome: "correct", Score: schema.Float(1)}))
	measured := 0.84
	out := runner.Outcome{RunID: "R1", PlanHash: p.Hash, Verdict: verdict.Aligned, Lock: "numpy==1.26.4\n", Executor: "local", Python: "3.11",
		Claims: []verdict.Row{{ClaimID: "c", Metric: "acc", Verdict: verdict.Aligned, Measured: &measured}}}
	rep := &report.Report{RunID: "R1", Verdict: "aligned", Paper: &report.Paper{ID: "1", Title: "A <title>"}}
	var page bytes.Buffer
	must(t, rep.JSON(&page))
	for name, v := range map[string]any{"plan.json": p, "outcome.json": out} {
		b, err := json.MarshalIndent(v, "", "  ")
		must(t, err)
		must(t, tx.Attach(name, b))
	}
	must(t, tx.Attach("report.json", page.Bytes()))
	must(t, tx.Attach("logs/execute-main.out", []byte("acc 0.84\nAuthorization: Bearer "+secret+"\n")))
	_, err = tx.Commit(t.Context())
	must(t, err)
	return d
}

func write(t testing.TB, d *dataset.Dataset, red *bundle.Redactor) ([]byte, *bundle.Manifest) {
	t.Helper()
	var b bytes.Buffer
	m, err := bundle.Write(t.Context(), &b, bundle.Source{Data: d, RunID: "R1", Request: &runner.Request{Target: "x", Executor: "local", Key: "k"}, Redact: red, Tool: "test", Temp: t.TempDir()})
	must(t, err)
	return b.Bytes(), m
}

func open(t testing.TB, body []byte) (*bundle.Bundle, error) {
	t.Helper()
	return bundle.Read(bytes.NewReader(body), int64(len(body)))
}

// TestThereAndBack writes a bundle and reads all of it.
func TestThereAndBack(t *testing.T) {
	p := plan("python a.py --data s3://bucket/x")
	d := committed(t, p, "nothing")
	body, m := write(t, d, nil)
	again, _ := write(t, d, nil)
	if !bytes.Equal(body, again) {
		t.Error("the same run gave other bytes")
	}
	if m.Redacted != 0 || m.Verdict != "aligned" || m.Title != "A <title>" {
		t.Errorf("%+v", m)
	}
	b, err := open(t, body)
	must(t, err)
	must(t, b.Verify(t.Context()))
	got, err := b.Plan()
	must(t, err)
	if got.ComputeHash() != p.Hash {
		t.Error("another plan")
	}
	out, err := b.Outcome()
	must(t, err)
	if *out.Claims[0].Measured != 0.84 || out.Packages() != "numpy==1.26.4\n" {
		t.Errorf("%+v", out)
	}
	req, err := b.Request()
	must(t, err)
	if req.Executor != "local" || req.Key != "" || req.Plan != nil {
		t.Errorf("%+v", req)
	}
	for name, want := range map[string]string{
		"lock.txt": "numpy==1.26.4\n", "digests.json": `"lock_sha256"`, "README.txt": "Verdict: aligned", "report.html": "A &lt;title&gt;",
		"patches/01-ma-in.patch": "@@ -3,1 +3,1 @@\n-n = 100\n+n = 1\n", "logs/execute-main.out": "acc 0.84", "results.json": `"run_id": "R1"`,
	} {
		doc, err := b.Document(name)
		if err != nil || !strings.Contains(string(doc), want) {
			t.Errorf("%s: %v: %.300s", name, err, doc)
		}
	}
	rows := slices.DeleteFunc(slices.Clone(b.Manifest.Parts), func(p bundle.Part) bool { return p.Table == "" })
	if len(rows) != 3 || !strings.HasPrefix(rows[0].Path, "rows/events/") || rows[0].Rows != 1 {
		t.Errorf("%+v", rows)
	}
	// The rows are the very bytes of the results folder, which their manifest names.
	r, err := b.Reader(rows[0].Path)
	must(t, err)
	have, err := io.ReadAll(r)
	must(t, err)
	orig, err := os.ReadFile(filepath.Join(d.Root(), filepath.FromSlash(strings.TrimPrefix(rows[0].Path, "rows/"))))
	must(t, err)
	if !bytes.Equal(have, orig) {
		t.Error("the rows are other bytes")
	}
	doc, _ := b.Document("results.json")
	if _, err := dataset.ParseManifest(doc); err != nil {
		t.Error(err)
	}
	var none *bundle.UserError
	if _, err := b.Document("nothing.txt"); !errors.As(err, &none) {
		t.Errorf("a member that is not there: %v", err)
	}
}

// TestMerged packs a run whose rows lie in files with those of others.
func TestMerged(t *testing.T) {
	p := plan("python a.py")
	d := committed(t, p, "nothing")
	tx := d.Begin("R2", created)
	must(t, dataset.Add(tx, schema.EventRow{Common: schema.Common{RunID: "R2", Kind: schema.Measured, SchemaVersion: schema.Version}, Seq: 1, Time: created, Event: "log", Data: "of another"}))
	_, err := tx.Commit(t.Context())
	must(t, err)
	_, err = d.Compact(t.Context(), dataset.CompactConfig{})
	must(t, err)
	left, err := filepath.Glob(filepath.Join(d.Root(), "events", "*", "*", "part-*.parquet"))
	must(t, err)
	if len(left) > 0 {
		t.Fatalf("nothing was merged: %q", left)
	}
	body, m := write(t, d, nil)
	b, err := open(t, body)
	must(t, err)
	must(t, b.Verify(t.Context()))
	if bytes.Contains(body, []byte("of another")) || m.Part("results.json") == nil || len(m.Parts) < 10 {
		t.Errorf("%+v", m)
	}
}

// TestSecrets puts a token into a log, a row and the plan.
func TestSecrets(t *testing.T) {
	for _, c := range []struct {
		secret string
		red    *bundle.Redactor
	}{{token, nil}, {"correct-horse-battery", bundle.NewRedactor(map[string]string{"LAB_API_KEY": "correct-horse-battery", "HOME": "/root", "X_TOKEN": "short"})}} {
		d := committed(t, plan("python a.py --auth "+c.secret), c.secret)
		body, m := write(t, d, c.red)
		if m.Redacted < 3 || m.Part("results.json") != nil {
			t.Errorf("%d texts were taken out", m.Redacted)
		}
		z, err := zip.NewReader(bytes.NewReader(body), int64(len(body)))
		must(t, err)
		dir := t.TempDir()
		for _, f := range z.File {
			r, err := f.Open()
			must(t, err)
			all, err := io.ReadAll(r)
			must(t, err)
			if bytes.Contains(all, []byte(c.secret)) {
				t.Errorf("%s holds the secret", f.Name)
			}
			if strings.Contains(f.Name, "/events/") {
				must(t, os.WriteFile(filepath.Join(dir, "e.parquet"), all, 0o600))
			}
		}
		f, err := os.Open(filepath.Join(dir, "e.parquet"))
		must(t, err)
		defer f.Close()
		r, err := schema.NewReader[schema.EventRow](f)
		must(t, err)
		rows, err := r.Next()
		must(t, err)
		if rows[0].Data != `{"text":"login [redacted]"}` || rows[0].RunID != "R1" {
			t.Errorf("%+v", rows[0])
		}
		b, err := open(t, body)
		must(t, err)
		must(t, b.Verify(t.Context()))
		var user *bundle.UserError
		if _, err := b.Plan(); !errors.As(err, &user) || !strings.Contains(err.Error(), "secrets were taken out") {
			t.Errorf("the plan without its secrets: %v", err)
		}
	}
}

func TestForms(t *testing.T) {
	var r bundle.Redactor
	for in, want := range map[string]string{
		"https://user:pa55word@pypi.example.org/simple":                       "https://[redacted]@pypi.example.org/simple",
		"git clone https://github.com/a/b@v1 # a: b@c":                        "git clone https://github.com/a/b@v1 # a: b@c",
		"OPENAI_API_KEY=abcdef12345 python x":                                 "OPENAI_API_KEY=[redacted] python x",
		"vllm serve --api-key abcdef123":                                      "vllm serve --api-key [redacted]",
		`["serve","--api-key","abcdef123"]`:                                   `["serve","--api-key","[redacted]"]`,
		"max_tokens=4096 --max-tokens 1000000":                                "max_tokens=4096 --max-tokens 1000000",
		"AKIAIOSFODNN7EXAMPLE":                                                "[redacted]",
		"rpm_ab12_" + strings.Repeat("x", 32):                                 "[redacted]",
		"-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----": "[redacted]",
		"sk-learn":              "sk-learn",
		"Bearer [redacted]":     "Bearer [redacted]",
		"https://[redacted]@h/": "https://[redacted]@h/",
	} {
		got, n := r.Text(in)
		if got != want || (n > 0) != (in != want) {
			t.Errorf("%q: got %q (%d), want %q", in, got, n, want)
		}
		if again, n := r.Text(got); again != got || n != 0 {
			t.Errorf("%q a second time: %q", got, again)
		}
	}
}

// member is one member of an archive that is made by hand.
type member struct {
	name string
	body []byte
	edit func(*zip.FileHeader)
}

func archive(t testing.TB, list []member) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, m := range list {
		h := &zip.FileHeader{Name: m.name, Method: zip.Deflate}
		if m.edit != nil {
			m.edit(h)
		}
		w, err := z.CreateHeader(h)
		must(t, err)
		_, err = w.Write(m.body)
		must(t, err)
	}
	must(t, z.Close())
	return b.Bytes()
}

// unpacked are the members of a good bundle.
func unpacked(t testing.TB, body []byte) (out []member) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(body), int64(len(body)))
	must(t, err)
	for _, f := range z.File {
		r, err := f.Open()
		must(t, err)
		b, err := io.ReadAll(r)
		must(t, err)
		out = append(out, member{name: f.Name, body: b})
	}
	return out
}

// TestHostile changes a good bundle in every way that must be noticed.
func TestHostile(t *testing.T) {
	good, _ := write(t, committed(t, plan("python a.py"), "nothing"), nil)
	base := unpacked(t, good)
	edit := func(name string, f func(b []byte) []byte) func([]member) []member {
		return func(l []member) []member {
			for i := range l {
				if l[i].name == name {
					l[i].body = f(l[i].body)
				}
			}
			return l
		}
	}
	add := func(name string, f func(*zip.FileHeader)) func([]member) []member {
		return func(l []member) []member { return append(l, member{name, []byte("x"), f}) }
	}
	text := func(from, to string) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.Replace(b, []byte(from), []byte(to), 1) }
	}
	for name, c := range map[string]struct {
		change func([]member) []member
		want   string
	}{
		"nothing":           {func(l []member) []member { return l }, ""},
		"another version":   {edit("bundle.json", text("bundle/v1", "bundle/v2")), "newer one"},
		"another schema":    {edit("bundle.json", text("repromill.bundle/v1", "x")), "schema"},
		"no JSON":           {edit("bundle.json", func([]byte) []byte { return []byte("{") }), "cannot be read"},
		"a changed number":  {edit("outcome.json", text("0.84", "0.99")), "content is not the one"},
		"a longer log":      {edit("logs/execute-main.out", func(b []byte) []byte { return append(b, 'x') }), "manifest states"},
		"a changed plan":    {edit("plan.json", text("a.py", "b.py")), "content is not the one"},
		"a missing member":  {func(l []member) []member { return l[:len(l)-1] }, "members"},
		"one more":          {add("extra.txt", nil), "members"},
		"a way out":         {add("../../etc/cron.d/x", nil), "../../etc"},
		"an absolute path":  {add("/etc/passwd", nil), "/etc/passwd"},
		"a drive":           {add("C:\\x", nil), "C:"},
		"a device":          {add("logs/NUL.txt", nil), "NUL"},
		"a hidden file":     {add("logs/.bashrc", nil), ".bashrc"},
		"a link":            {add("link", func(h *zip.FileHeader) { h.SetMode(fs.ModeSymlink | 0o777) }), "a link"},
		"twice":             {add("plan.json", nil), "twice"},
		"encrypted":         {add("secret", func(h *zip.FileHeader) { h.Flags |= 1 }), "encrypted"},
		"a large statement": {edit("bundle.json", text(`"bytes": `, `"bytes": 99999999`)), "larger"},
		"negative":          {edit("bundle.json", text(`"bytes": `, `"bytes": -`)), "no size"},
		"a bomb":            {edit("bundle.json", func([]byte) []byte { return bytes.Repeat([]byte(" "), 80<<20) }), "unpacks to more"},
	} {
		t.Run(name, func(t *testing.T) {
			body := archive(t, c.change(slices.Clone(base)))
			b, err := open(t, body)
			if err == nil {
				err = b.Verify(t.Context())
			}
			if c.want == "" {
				must(t, err)
				return
			}
			var user *bundle.UserError
			if err == nil || !strings.Contains(err.Error(), c.want) && !(errors.As(err, &user) && strings.Contains(user.Fix, c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if !errors.As(err, &user) || user.Fix == "" {
				t.Errorf("no fix: %v", err)
			}
		})
	}
	for _, n := range []int{0, 1, 30, len(good) / 2, len(good) - 1} {
		var user *bundle.UserError
		if _, err := open(t, good[:n]); !errors.As(err, &user) {
			t.Errorf("%d of %d bytes: %v", n, len(good), err)
		}
	}
}

// TestManyMembers refuses an endless list before it is in memory.
func TestManyMembers(t *testing.T) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for range 200_000 {
		_, err := z.CreateRaw(&zip.FileHeader{Name: "a"})
		must(t, err)
	}
	must(t, z.Close())
	if _, err := open(t, b.Bytes()); err == nil || !strings.Contains(err.Error(), "list of members") {
		t.Errorf("%v", err)
	}
}

func TestNoSuchRun(t *testing.T) {
	d, err := dataset.Open(t.TempDir(), dataset.Config{})
	must(t, err)
	if _, err := bundle.Write(t.Context(), io.Discard, bundle.Source{Data: d, RunID: "R2"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// TestDamagedRows are not packed, and an ended context ends the work.
func TestDamagedRows(t *testing.T) {
	d := committed(t, plan("python a.py"), "nothing")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := bundle.Write(ctx, io.Discard, bundle.Source{Data: d, RunID: "R1"}); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(d.Root(), "events", "*", "*", "*.parquet"))
	must(t, err)
	b, err := os.ReadFile(files[0])
	must(t, err)
	b[len(b)/2] ^= 1
	must(t, os.WriteFile(files[0], b, 0o600))
	var user *bundle.UserError
	if _, err := bundle.Write(t.Context(), io.Discard, bundle.Source{Data: d, RunID: "R1"}); !errors.As(err, &user) || !strings.Contains(user.Fix, "results verify") {
		t.Errorf("%v", err)
	}
}

func FuzzRead(f *testing.F) {
	good, _ := write(f, committed(f, plan("python a.py"), "nothing"), nil)
	f.Add(good)
	f.Add(good[:len(good)/2])
	base := unpacked(f, good)
	f.Add(archive(f, base[:1]))
	f.Add(archive(f, []member{{name: "bundle.json", body: []byte(`{"schema":"repromill.bundle/v1","parts":[]}`)}}))
	f.Fuzz(func(t *testing.T, body []byte) {
		b, err := open(t, body)
		if err != nil {
			var user *bundle.UserError
			if !errors.As(err, &user) {
				t.Errorf("no user's error: %v", err)
			}
			return
		}
		if b.Verify(t.Context()) == nil && b.Manifest.Part("plan.json") != nil {
			if p, err := b.Plan(); err == nil && p.Hash != b.Manifest.PlanHash {
				t.Error("a plan of another hash was read")
			}
		}
	})
}
