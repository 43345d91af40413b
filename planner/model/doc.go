// Package model says what a model really is, from its bytes: the structure
// that its config.json describes, the number formats that its quantisation
// metadata and its tensors state, and from both the true parameters, bytes,
// and cache per token. Names, cards and hub counters are claims to be checked,
// never sources.
//
// The package is a leaf without network: callers hand it bytes, or a [Source]
// that serves ranges of files.
//
//   - [Parse] reads config.json and hf_quant_config.json into a [Model].
//   - [ReadCheckpoint] adds the index and the headers of all shards, and says
//     what does not fit; [ReadHeader] reads one. Nothing that a header claims is
//     believed before it was checked against the file.
//   - [TakeCensus] sorts tensors into weights with their scales.
//   - [Known] puts both together: formats by part ([Known.Groups]), and claims of
//     name, card and hub ([ReadCard], [NameClaims]) checked by [CheckClaims].
//   - [Look] compares a weight with its base or looks at its scales alone;
//     [Sweep] does so for all weights of a checkpoint.
//   - [ParseArm] and [CompareArms] put serving flags side by side and name what
//     makes a comparison unfair.
//   - The functions on codes (EncodeE4M3, DecodeE2M1, …) and on blocks
//     ([QuantizeNVFP4], [QuantizeMXFP4], [QuantizeFP8]) are the exact arithmetic
//     of the formats.
package model
