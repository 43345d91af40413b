package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// registryEntry is the hidden command that serves the local registry:
// ADDRESS FOLDER.
const registryEntry = "__registry"

func registryMain(args []string, stderr io.Writer) int {
	if len(args) != 2 {
		fmt.Fprintln(stderr, "this command is started by devcluster itself")
		return 2
	}
	blobs := registry.NewDiskBlobHandler(args[1])
	srv := &http.Server{
		Addr: args[0], ReadHeaderTimeout: 10 * time.Second,
		Handler: registry.New(registry.Logger(log.New(stderr, "", log.LstdFlags)), registry.WithBlobHandler(blobs)),
	}
	if err := os.MkdirAll(args[1], 0o755); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	fmt.Fprintln(stderr, srv.ListenAndServe())
	return 1
}

// pauseImage is what holds the namespaces of a pod; containerd is told its name.
const pauseImage = "repromill/pause"

// pushPause pushes the image that every pod begins with.
func (c *cluster) pushPause(ctx context.Context) error {
	b, err := os.ReadFile(filepath.Join(c.Versions.binDir(), "pause"))
	if err != nil {
		return fmt.Errorf("read pause: %w", err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "pause", Mode: 0o755, Size: int64(len(b)), Typeflag: tar.TypeReg}); err != nil {
		return fmt.Errorf("make pause image: %w", err)
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("make pause image: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("make pause image: %w", err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		return fmt.Errorf("make pause image: %w", err)
	}
	_, err = c.push(ctx, pauseImage, v1.Config{Entrypoint: []string{"/pause"}, User: "65532:65532"}, l)
	return err
}
