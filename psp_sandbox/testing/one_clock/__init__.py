"""One clock: the clocks of an application's processes follow a merchant's clock. Linux only; needs a C compiler."""
