// Package results is where what a run found is kept and shown.
//
// The packages below it are independent of planning and running:
// results/schema says what every table's columns are and encodes rows,
// results/dataset commits the files of a run to a Hive-partitioned folder,
// results/report renders the one page a person reads, and
// results/atomicfile is the durable write that they share.
package results
