package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner/bundle"
)

// bundled is what `bundle --json` prints.
type bundled struct {
	File   string `json:"file"`
	Digest string `json:"digest"` // SHA-256 of its manifest
	Bytes  int64  `json:"bytes"`  // of the archive
	*bundle.Manifest
}

func (a *app) bundleCmd() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "bundle RUN",
		Short: "Pack a run into one archive that opens everywhere",
		Long: `Pack everything that a run left into one ZIP file: plan, lock, digests, patches,
logs, reports, and the rows as Parquet. What looks like a secret is taken out of
all of it. ` + "`repromill rerun FILE`" + ` repeats the run on any machine and compares.

bundle.json in the archive lists every member with its SHA-256; the digest that is
printed is that list's own, by which two people know that they have the same.`,
		Example: "  repromill bundle 01K9…\n  repromill bundle 01K9… -o shared/run.zip --json\n  repromill bundle verify run.zip",
		Args:    exactArgs(1, "one run id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer st.close()
			b, err := a.bundle(cmd.Context(), st, args[0], out)
			if err != nil {
				return err
			}
			return a.showBundle(b)
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "write to `FILE`; without it repromill-RUN.zip here")
	cmd.AddCommand(&cobra.Command{
		Use:     "verify FILE",
		Short:   "Check a bundle's members against its manifest",
		Example: "  repromill bundle verify repromill-01K9….zip --json",
		Args:    exactArgs(1, "one FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := a.openBundle(args[0])
			if err != nil {
				return err
			}
			defer b.b.Close()
			if err := b.b.Verify(cmd.Context()); err != nil {
				return err
			}
			return a.showBundle(b.bundled)
		},
	})
	return cmd
}

func (a *app) showBundle(b bundled) error {
	if a.jsonOut {
		return a.printJSON(b)
	}
	fmt.Fprintf(a.stdout, "%s\n  run %s, %d members, %.1f MB\n  digest %s\n", b.File, b.RunID, len(b.Parts), float64(b.Bytes)/1e6, b.Digest)
	if b.Title != "" {
		fmt.Fprintf(a.stdout, "  %s\n", clean(oneLine(b.Title)))
	}
	if b.Verdict != "" {
		fmt.Fprintf(a.stdout, "  verdict: %s\n", clean(b.Verdict))
	}
	if b.Redacted > 0 {
		fmt.Fprintf(a.stdout, "  %d texts that looked like secrets were taken out\n", b.Redacted)
	}
	for _, f := range b.LeftOut {
		fmt.Fprintf(a.stdout, "  left out, since it cannot be looked through for secrets: %s\n", clean(f))
	}
	return nil
}

type opened struct {
	bundled
	b *bundle.Bundle
}

func (a *app) openBundle(name string) (opened, error) {
	b, err := bundle.Open(name)
	if err != nil {
		return opened{}, err
	}
	out := opened{bundled{File: name, Digest: b.Digest, Manifest: &b.Manifest}, b}
	if info, err := os.Stat(name); err == nil {
		out.Bytes = info.Size()
	}
	return out, nil
}

// bundle packs a run into a file, which appears as a whole or not at all.
func (a *app) bundle(ctx context.Context, st *stack, id, name string) (out bundled, err error) {
	if run, err := st.store.Find(ctx, id); err == nil {
		id = run.ID
	}
	if _, err := st.data.Manifest(id); errors.Is(err, fs.ErrNotExist) {
		return out, usererrf("`repromill results list` lists what is committed", "run %q has no committed results", id)
	} else if err != nil {
		return out, err
	}
	if name == "" {
		name = "repromill-" + id + ".zip"
	}
	const fix = "give -o a file in a folder that can be written"
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return out, usererrf(fix, "%s is no file", name)
	}
	temp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*.tmp")
	if err != nil {
		return out, usererrf(fix, "cannot write the bundle: %v", err)
	}
	defer func() { // nothing is left of one that did not come about
		if err != nil {
			_ = os.Remove(temp.Name())
		}
	}()
	err = a.writeBundle(ctx, st, id, temp)
	if err == nil {
		err = temp.Chmod(0o644)
	}
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return out, err
	}
	if err = atomicfile.Rename(temp.Name(), name, atomicfile.Options{Hook: a.failpoint(), Point: "bundle:file"}); err != nil {
		return out, err
	}
	o, err := a.openBundle(name)
	if err != nil {
		return out, fmt.Errorf("read back what was written: %w", err)
	}
	return o.bundled, o.b.Close()
}

// writeBundle packs a committed run, with what the store knows of how it was
// asked for.
func (a *app) writeBundle(ctx context.Context, st *stack, id string, w io.Writer) error {
	src := bundle.Source{Data: st.data, RunID: id, Redact: bundle.NewRedactor(a.env), Tool: createdBy(), Temp: a.env["TMPDIR"]}
	if req, err := st.runner.Request(ctx, id); err == nil {
		src.Request = &req
	}
	_, err := bundle.Write(ctx, w, src)
	return err
}
