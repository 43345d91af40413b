package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"
)

// objectKey is the access key of the S3 server; its secret is made anew for
// every cluster.
const (
	objectKey    = "repromill-devcluster"
	objectBucket = "results"
)

// startObjectStore starts an S3 server that pods reach, with one bucket. It
// checks signatures and conditions as Amazon's does.
func (c *cluster) startObjectStore(ctx context.Context) error {
	if _, err := os.Stat(c.path("pki", "objects.secret")); errors.Is(err, os.ErrNotExist) {
		if err := writeFile(c.path("pki", "objects.secret"), []byte(token()), 0o600); err != nil {
			return err
		}
	}
	for _, dir := range []string{"objects/" + objectBucket, "object-attributes"} {
		if err := os.MkdirAll(c.path(dir), 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	_, key, secret := c.bucket()
	err := c.startWith([]string{"ROOT_ACCESS_KEY_ID=" + key, "ROOT_SECRET_ACCESS_KEY=" + secret}, "objects", c.bin(c.Versions.objectStore()),
		"--port", c.objects(), "--region", "us-east-1", "posix", "--sidecar", c.path("object-attributes"), c.path("objects"))
	if err != nil {
		return err
	}
	return c.await(ctx, "objects", "the object store answers", time.Minute, func() error { return answers("http://" + c.objects() + "/") })
}

func (c *cluster) objects() string { return fmt.Sprintf("%s:%d", c.NodeIP, c.Ports["objects"]) }

// bucket is the bucket's URL as repromill takes it, and its credentials.
func (c *cluster) bucket() (at, key, secret string) {
	b, err := os.ReadFile(c.path("pki", "objects.secret"))
	if err != nil {
		return "", "", "" // a cluster that has not come so far
	}
	return fmt.Sprintf("s3://%s?region=us-east-1&use_path_style=true&endpoint=%s", objectBucket, url.QueryEscape("http://"+c.objects())), objectKey, string(b)
}
