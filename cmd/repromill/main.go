// Command repromill checks what a paper or a model card claims: it finds the
// code, plans the smallest run that can tell, runs it in a sandbox and commits
// the verdict as Parquet.
package main

import (
	"context"
	"os"

	"github.com/repromill/repromill/cmd/repromill/internal/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args, os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
