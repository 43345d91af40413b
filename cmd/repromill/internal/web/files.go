package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/plot"
	"github.com/repromill/repromill/results/report"
	"github.com/repromill/repromill/runner/bundle"
	"github.com/repromill/repromill/runner/store"
)

// file answers with a document that browsers save under the name.
func (c *call) file(kind, name string, b []byte) error {
	h := c.w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(b)))
	if name != "" {
		h.Set("Content-Disposition", `attachment; filename="`+name+`"`)
	}
	_, err := c.w.Write(b)
	return ignoreGone(err)
}

func (c *call) report() (*report.Report, error) {
	run, err := c.run()
	if err != nil {
		return nil, err
	}
	rep, err := c.s.cfg.Runner.Report(c.r.Context(), run.ID)
	if err != nil {
		return nil, problemf(http.StatusNotFound, "wait until it is done", "run %s has no report", run.ID)
	}
	return rep, nil
}

// reportFile gives the report as one file: HTML that needs nothing else,
// Markdown, or JSON.
func (s *Server) reportFile(c *call) error {
	rep, err := c.report()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	switch ext := path.Ext(c.r.URL.Path); ext {
	case ".html":
		if err := rep.HTML(&b); err != nil {
			return err
		}
		// Its style is inside, which the policy of the other pages forbids.
		c.w.Header().Set("Content-Security-Policy", report.Policy()+"; frame-ancestors 'none'")
		return c.file("text/html; charset=utf-8", "", b.Bytes())
	case ".md":
		if err := rep.Markdown(&b); err != nil {
			return err
		}
		return c.file("text/markdown; charset=utf-8", "report-"+rep.RunID+".md", b.Bytes())
	default:
		if err := rep.JSON(&b); err != nil {
			return err
		}
		return c.file("application/json", "", b.Bytes())
	}
}

// figureFile gives a drawing of the report as SVG or PNG.
func (s *Server) figureFile(c *call) error {
	rep, err := c.report()
	if err != nil {
		return err
	}
	name := c.r.PathValue("name")
	ext := path.Ext(name)
	_, figures := rep.Figures()
	f := figures[strings.TrimSuffix(name, ext)]
	if f == nil {
		return problemf(http.StatusNotFound, "the figures are listed in /v1/runs/{id}", "the report has no figure %q", name)
	}
	var b bytes.Buffer
	switch ext {
	case ".svg":
		if err := f.SVG(&b, plot.Light()); err != nil {
			return err
		}
		return c.file("image/svg+xml", "", b.Bytes())
	case ".png":
		if err := f.PNG(&b, plot.Light()); err != nil {
			return err
		}
		return c.file("image/png", "", b.Bytes())
	}
	return problemf(http.StatusNotFound, "ask for .svg or .png", "figures come as SVG and PNG")
}

// parquetView lists the files of a run.
type parquetView struct {
	RunID string
	Root  string
	Files []parquetRow
}

type parquetRow struct {
	N     int
	Table string
	Rows  int64
	Bytes int64
	Path  string
	Query string
}

// manifest is that of the run of the path, which may be a measurement that only
// the results know.
func (c *call) manifest() (*dataset.Manifest, error) {
	run, err := c.run()
	if errors.Is(err, store.ErrNotFound) {
		if m, bad := c.s.cfg.Data.Manifest(c.r.PathValue("id")); bad == nil {
			return m, nil
		}
	}
	if err != nil {
		return nil, err
	}
	m, err := c.s.cfg.Data.Manifest(run.ID)
	if err != nil {
		return nil, problemf(http.StatusNotFound, "wait until it is done", "run %s has committed nothing", run.ID)
	}
	return m, nil
}

func (s *Server) parquetPage(c *call) error {
	m, err := c.manifest()
	if err != nil {
		return err
	}
	v := &parquetView{RunID: m.RunID, Root: s.cfg.Data.Root()}
	for i, f := range m.Files {
		v.Files = append(v.Files, parquetRow{i, f.Table, f.Rows, f.Bytes, f.Path,
			fmt.Sprintf("SELECT * FROM read_parquet('%s', hive_partitioning=true, union_by_name=true) WHERE run_id='%s'", s.cfg.Data.Glob(f.Table), m.RunID)})
	}
	return c.render(http.StatusOK, "parquet.html", "Rows of run "+m.RunID, "runs", v)
}

// parquetFile sends the n-th file of a run's manifest: no path comes from the
// request.
func (s *Server) parquetFile(c *call) error {
	m, err := c.manifest()
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(c.r.PathValue("n"), ".parquet"))
	if err != nil || n < 0 || n >= len(m.Files) {
		return problemf(http.StatusNotFound, "the files are listed at /runs/"+m.RunID+"/parquet", "there is no such file")
	}
	data := s.cfg.Data
	if data.Merged(m) {
		// The visitor asked for this run's rows, not for those it shares a file with.
		dir, err := os.MkdirTemp("", "repromill-rows-")
		if err != nil {
			return fmt.Errorf("open results: %w", err)
		}
		defer os.RemoveAll(dir)
		if data, err = data.Extract(c.r.Context(), m.RunID, dir); err != nil {
			return fmt.Errorf("open results: %w", err)
		}
	}
	root, err := os.OpenRoot(data.Root())
	if err != nil {
		return fmt.Errorf("open results: %w", err)
	}
	defer root.Close()
	f, err := root.Open(filepath.FromSlash(m.Files[n].Path))
	if err != nil {
		return fmt.Errorf("open results: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("open results: %w", fs.ErrInvalid)
	}
	c.w.Header().Set("Content-Type", "application/vnd.apache.parquet")
	c.w.Header().Set("Content-Disposition", `attachment; filename="`+m.Files[n].Table+"-"+m.RunID+`.parquet"`)
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(time.Hour)) // large files over slow lines
	http.ServeContent(c.w, c.r, "", info.ModTime(), f)
	return nil
}

// bundle sends the whole run as one archive. Making one reads all of its rows, so
// that only a few are made at once.
func (c *call) bundle() error {
	m, err := c.manifest()
	if err != nil {
		return err
	}
	select {
	case c.s.packing <- struct{}{}:
		defer func() { <-c.s.packing }()
	default:
		p := problemf(http.StatusServiceUnavailable, "ask again in a moment", "other bundles are being made")
		p.retry = 10 * time.Second
		return p
	}
	src := bundle.Source{Data: c.s.cfg.Data, RunID: m.RunID, Redact: c.s.cfg.Redact, Tool: c.s.cfg.Version}
	if req, err := c.s.cfg.Runner.Request(c.r.Context(), m.RunID); err == nil {
		src.Request = &req
	}
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(time.Hour)) // large files over slow lines
	out := &download{c: c, name: "repromill-" + m.RunID + ".zip"}
	_, err = bundle.Write(c.r.Context(), out, src)
	if err != nil && out.begun {
		// Only a broken connection tells the browser that the file is not whole.
		panic(http.ErrAbortHandler)
	}
	return err
}

// download sets the headers with the first byte, so that what goes wrong before it
// is still an answer of its own.
type download struct {
	c     *call
	name  string
	begun bool
}

func (d *download) Write(b []byte) (int, error) {
	if !d.begun {
		d.begun = true
		d.c.w.Header().Set("Content-Type", "application/zip")
		d.c.w.Header().Set("Content-Disposition", `attachment; filename="`+d.name+`"`)
	}
	return d.c.w.Write(b)
}

// notebook is a Jupyter notebook (nbformat 4.5) that reads the rows of the run
// with DuckDB; it needs the results folder and nothing of this program.
func (s *Server) notebook(c *call) error {
	m, err := c.manifest()
	if err != nil {
		return err
	}
	cells := []any{
		cell("markdown", "intro", "# Run "+m.RunID+"\n\nEvery row that this run committed, read from Parquet with DuckDB. Set `root` to where the results lie."),
		cell("code", "parameters", fmt.Sprintf("import duckdb\n\nroot = %s\nrun_id = %s", quote(s.cfg.Data.Root()), quote(m.RunID))),
		cell("code", "read", "def rows(table, columns='*'):\n    return duckdb.sql(f\"SELECT {columns} FROM read_parquet('{root}/{table}/*/**/*.parquet', hive_partitioning=true, union_by_name=true) WHERE run_id = '{run_id}'\")"),
	}
	seen := map[string]bool{}
	for _, f := range m.Files {
		if !seen[f.Table] {
			seen[f.Table] = true
			cells = append(cells, cell("code", "table-"+f.Table, fmt.Sprintf("rows(%s)", quote(f.Table))))
		}
	}
	b, err := json.MarshalIndent(map[string]any{
		"nbformat": 4, "nbformat_minor": 5, "cells": cells,
		"metadata": map[string]any{"kernelspec": map[string]string{"name": "python3", "display_name": "Python 3", "language": "python"}},
	}, "", " ")
	if err != nil {
		return fmt.Errorf("encode notebook: %w", err)
	}
	return c.file("application/x-ipynb+json", "repromill-"+m.RunID+".ipynb", b)
}

func cell(kind, id, text string) map[string]any {
	tags := []string{}
	if id == "parameters" {
		tags = append(tags, id)
	}
	out := map[string]any{"cell_type": kind, "id": id, "metadata": map[string]any{"tags": tags}, "source": text}
	if kind == "code" {
		out["outputs"], out["execution_count"] = []any{}, nil
	}
	return out
}

// quote makes a Python string, whose escapes are those of JSON.
func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// logPage gives the output of the last attempt as text, from a byte on.
func (s *Server) logPage(c *call) error {
	text, next, err := c.output()
	if err != nil {
		return err
	}
	c.w.Header().Set("X-Next-Byte", strconv.FormatInt(next, 10))
	return c.file("text/plain; charset=utf-8", "", []byte(text))
}

// output reads what the request asks for of the last attempt, or of the one
// that it names.
func (c *call) output() (text string, next int64, err error) {
	run, err := c.run()
	if err != nil {
		return "", 0, err
	}
	q := c.r.URL.Query()
	from := int64(0)
	if v := q.Get("from"); v != "" {
		if from, err = strconv.ParseInt(v, 10, 64); err != nil {
			return "", 0, problemf(http.StatusBadRequest, "give a number of bytes", "from is %q", v)
		}
	}
	list, err := c.s.cfg.Runner.Attempts(c.r.Context(), run.ID)
	if err != nil || len(list) == 0 {
		return "", 0, err
	}
	a := list[len(list)-1]
	if want := q.Get("attempt"); want != "" {
		found := false
		for _, x := range list {
			if x.Key == want {
				a, found = x, true
			}
		}
		if !found {
			return "", 0, problemf(http.StatusNotFound, "the attempts are listed in /v1/runs/{id}", "the run has no attempt %q", want)
		}
	}
	return c.log(run.ID, a, from)
}
