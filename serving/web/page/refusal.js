// Why something published is not taken. The version in service stays, whatever it is.

/** `kind`: untrusted, rollback, unsupported, damaged, self-test or offline, as docs/channel-spec.md has them. */
export class Refusal extends Error {
  constructor(kind, message) {
    super(message);
    this.name = "Refusal";
    this.kind = kind;
  }
}
